"""Threads of the kernels in C: how they share work, and what they do without one another."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from signal import SIGINT
from threading import Thread, get_native_id
from time import monotonic, sleep

import pytest
import torch
from torch import Tensor

from engine.kernels.native.linear import linear
from engine.kernels.native.weights import pack
from native import needs_kernels

pytestmark = needs_kernels
PRELUDE = """
import os, resource, torch
from engine.kernels.native.linear import linear
from engine.kernels.native.weights import pack
torch.set_num_threads(1)
x, w = torch.randn(37, 32), torch.randn(70, 32)
packed, expected = pack(w), x @ w.T
def right(threads):
    return torch.allclose(linear(x, packed, threads=threads), expected, atol=1e-4)
"""


def _run(code: str) -> None:
    """Run code in a fresh process, after `PRELUDE`."""
    command = [sys.executable, "-c", PRELUDE + code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def _product(seed: int, tokens: int, outputs: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(tokens, 32, generator=draw), torch.randn(outputs, 32, generator=draw)


@pytest.mark.parametrize("threads", [1, 2, 3, 7, 16])
@pytest.mark.parametrize(("tokens", "outputs"), [(1, 64), (5, 200), (64, 130), (300, 70)])
def test_any_number_of_threads_does_all_of_the_work(
    threads: int, tokens: int, outputs: int
) -> None:
    x, w = _product(tokens, tokens, outputs)
    torch.testing.assert_close(linear(x, pack(w), threads=threads), x @ w.T, atol=1e-4, rtol=1e-4)


def test_thousands_of_small_regions_in_a_row_lose_no_unit() -> None:
    """More threads than processors, so that they are taken from each other at all moments."""
    x, w = _product(1, 4, 320)
    packed, expected = pack(w), x @ w.T
    for _ in range(3_000):
        assert torch.allclose(linear(x, packed, threads=5), expected, atol=1e-4)


def test_callers_at_once_have_threads_of_their_own() -> None:
    def work(seed: int) -> bool:
        x, w = _product(seed, 9, 150)
        packed, expected = pack(w), x @ w.T
        return all(
            torch.allclose(linear(x, packed, threads=3), expected, atol=1e-4) for _ in range(200)
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(8)))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc")
def test_helpers_take_no_signals_and_end_with_the_thread_that_called() -> None:
    """Python's handlers run in its main thread, which a signal to another would not wake."""
    x, w = _product(2, 9, 150)
    packed = pack(w)
    before, helpers, taking = _tasks(), set[str](), list[str]()

    def call() -> None:
        linear(x, packed, threads=4)
        helpers.update(_tasks() - before - {str(get_native_id())})
        taking.extend(task for task in helpers if not _blocks(task, SIGINT))

    caller = Thread(target=call)
    caller.start()
    caller.join()
    assert len(helpers) == 3
    assert not taking
    ends = monotonic() + 60
    while _tasks() & helpers and monotonic() < ends:
        sleep(0.01)
    assert not _tasks() & helpers


def _tasks() -> set[str]:
    return {path.name for path in Path("/proc/self/task").iterdir()}


def _blocks(task: str, signal: int) -> bool:
    status = Path(f"/proc/self/task/{task}/status").read_text().splitlines()
    mask = next(line.split()[1] for line in status if line.startswith("SigBlk"))
    return bool(int(mask, 16) >> (signal - 1) & 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_process_has_no_helpers_and_computes_alone_on_one_processor() -> None:
    _run("""
assert right(3)
child = os.fork()
if child == 0:
    os._exit(0 if right(3) else 1)
assert os.waitpid(child, 0)[1] == 0
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
assert all(right(6) for _ in range(50))
""")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc")
def test_without_memory_for_helpers_the_caller_does_all_of_the_work() -> None:
    _run("""
right(1)
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 2 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
before = len(os.listdir("/proc/self/task"))
assert right(4)
assert len(os.listdir("/proc/self/task")) == before
""")
