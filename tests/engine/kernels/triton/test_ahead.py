"""Kernels compiled ahead: each once, several at once, kept on disk, and no failure is lost.

A process in which Triton interprets compiles nothing any more, so there these tests are run once
more in another one.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")

import triton
from triton.runtime.driver import driver

from compiling.jobs import module_at
from compiling.workers import StandInDriver
from engine.kernels.triton.ahead import MOST_THREADS, Ahead, _Pool, compile_ahead
from engine.kernels.triton.launch import INTERPRETED, Launch

compiles = pytest.mark.skipif(
    INTERPRETED,
    reason="the interpreter compiles nothing; the last test has them run",
)
PLANTED = Path(__file__).parents[3] / "compiling" / "planted.py"


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Launch]:
    """Launches by their kernels' names, for a card that is not here and an empty cache."""
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))
    monkeypatch.setattr(driver, "_active", StandInDriver(90))
    launches = module_at(str(PLANTED)).shipped_launches((9, 0))
    return {each.kernel.__name__: each for each in launches}


def scaled(launch: Launch, *factors: float) -> list[Launch]:
    """The same launch, compiled anew for each factor."""
    return [replace(launch, constants=launch.constants | {"SCALE": x}) for x in factors]


def cubins(folder: Path) -> int:
    return len(list(folder.glob("*/*.cubin")))


@pytest.fixture
def threads_that_compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of threads, noted by a listener that was there before."""
    found: list[str] = []

    def listener(**_: Any) -> None:
        found.append(threading.current_thread().name)

    monkeypatch.setattr(triton.knobs.compilation, "listener", listener)
    yield found
    assert triton.knobs.compilation.listener is listener


@compiles
def test_equal_launches_are_compiled_once_and_found_on_disk_the_next_time(
    planted: dict[str, Launch], threads_that_compiled: list[str], tmp_path: Path
) -> None:
    good = planted["good"]
    launches = scaled(good, 2.0, 3.0, 5.0)
    empty = replace(scaled(good, 7.0)[0], grid=(0,))
    first = compile_ahead([*launches, *launches, empty], 2)
    assert (first.compiled, first.found, first.threads, first.error) == (3, 0, 2, "")
    assert cubins(tmp_path) == 3
    assert str(first) == f"3 kernels compiled by 2 threads in {first.seconds:.1f} s"
    assert len(threads_that_compiled) == 3
    assert all(name.startswith("compile") for name in threads_that_compiled)

    assert compile_ahead(launches, 2).compiled == 0, "the process has them"
    good.kernel.device_caches.clear()  # another process
    again = compile_ahead([*launches, *scaled(good, 11.0)], 10**6)
    assert (again.compiled, again.found, again.threads) == (1, 3, MOST_THREADS)
    assert str(again).endswith(", 3 kernels found in Triton's cache")
    kernel = good.kernel.warmup(*good.arguments, grid=good.grid, **launches[0].constants)
    assert kernel.asm["cubin"], "what is launched next has its code"


@compiles
def test_a_kernel_that_does_not_compile_says_so_when_it_is_launched(
    planted: dict[str, Launch], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good, wrong = planted["good"], planted["wrong"]
    came = compile_ahead([wrong, *scaled(good, 2.0, 3.0), wrong], 2)
    assert came.error.startswith("CompilationError: ")
    (said,) = caplog.messages
    assert said == f"1 not compiled ahead, the first: {came.error}"
    assert str(came) == "kernels compiled one after the other, as compiling them at once failed"
    assert cubins(tmp_path) == 2, "the others are kept"
    for _ in range(2):
        with pytest.raises(triton.CompilationError):
            wrong.kernel.warmup(*wrong.arguments, grid=wrong.grid, **wrong.constants)
    compiled = good.kernel.warmup(*good.arguments, grid=good.grid, **scaled(good, 3.0)[0].constants)
    assert compiled.metadata.target.arch == 90


@compiles
def test_what_fails_before_it_is_compiled_fails_nothing_else(
    planted: dict[str, Launch], caplog: pytest.LogCaptureFixture
) -> None:
    good = planted["good"]
    unknown = replace(good, constants=good.constants | {"NO_SUCH": 1})
    came = compile_ahead([*scaled(good, 2.0), unknown, *scaled(good, 3.0)], 1)
    assert "NO_SUCH" in came.error
    assert "NO_SUCH" in caplog.text
    assert compile_ahead(scaled(good, 2.0, 3.0), 1).error == "", "the mode was left"


@pytest.mark.parametrize(
    ("fault", "times", "tries"),
    [(SystemError, 2, 3), (RecursionError, 9, 5), (None, 9, 1)],
)
def test_what_fails_by_chance_is_tried_again(
    fault: type[Exception] | None, times: int, tries: int
) -> None:
    done = 0

    def work() -> str:
        nonlocal done
        done += 1
        if done <= times:
            # As Triton tells what went wrong in a function that a kernel calls.
            raise ValueError("at 3:40") from (fault("depth") if fault is not None else None)
        return "code"

    with _Pool(1) as pool:
        future = pool.submit(work)
    if times < tries:
        assert future.result() == "code"
    else:
        assert isinstance(future.exception(), ValueError)
    assert done == tries


def test_what_was_found_is_told_without_threads() -> None:
    assert str(Ahead(0, 412, 16, 1.25)) == "412 kernels found in Triton's cache in 1.2 s"


@pytest.mark.slow
@pytest.mark.skipif(not INTERPRETED, reason="where Triton compiles, they run in this process")
def test_the_tests_that_compile_pass_in_a_process_of_their_own() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-x", __file__],
        env=os.environ | {"TRITON_INTERPRET": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "7 passed, 1 skipped" in done.stdout
