"""What holds for every test."""

import os
import random
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

# A run that a script starts in the background inherits "ignore Ctrl-C", and so would every process
# that a test starts and then interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Threads of OpenMP that spin while they wait take the processors that other tests need; torch reads
# this when it is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Triton reads it when it is imported. Without a GPU its kernels run in its interpreter.
if find_spec("triton") is not None and not Path("/dev/nvidiactl").exists():
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
