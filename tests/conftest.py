"""What holds for every test."""

import atexit
import os
import random
import shutil
import signal
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest

# A run that a script starts in the background, or under nohup, inherits "ignore Ctrl-C" or "ignore
# that the terminal is gone", and so would every process that a test starts and then interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Threads of OpenMP that spin while they wait take the processors that other tests need; torch reads
# this when it is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Weights that engines keep are shared by the tests of one run, and by nothing else. Processes that
# share the tests among them have it from the first.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="tidemill-cache-")
    atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

# Triton reads this when it is loaded: without a GPU its kernels run in its interpreter.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# A machine that only runs the tests of the engine, with torch and pytest, may lack it.
PROPERTY_TESTS = find_spec("hypothesis") is not None
if PROPERTY_TESTS:
    import properties

    properties.use_profiles()


SLOW = frozenset(
    line
    for line in Path(__file__).with_name("slow.txt").read_text().splitlines()
    if not line.startswith("#")
)


@pytest.hookimpl(tryfirst=True)  # before `-m` picks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        # `llm` is an engine with a real model.
        names = {getattr(item, "originalname", item.name), getattr(item.parent, "name", "")}
        if names & SLOW or "llm" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)
    # Long ones first: what is left to share at the end is short.
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish(session: pytest.Session) -> None:
    if PROPERTY_TESTS and properties.current().derandomize:
        properties.ignore_loaded_modules()


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Random numbers that do not depend on the tests that ran before."""
    random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
