"""Kernels compiled ahead of their first launch, several at once.

Triton compiles a kernel when it is first launched, and whoever launches waits; a model has a
hundred of them. Here launches that were only noted down are compiled by threads: most of a
compiler's time is spent in LLVM and ptxas, which hold no lock of Python's. The code is kept where
Triton always keeps it, in the process and in its cache on disk.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import triton

from engine.kernels.triton.launch import Launch

MOST_THREADS = 16
_TRIES = 5

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ahead:
    """What came of it.

    Attributes:
        compiled: kernels that were compiled.
        found: kernels that were in Triton's cache on disk.
        threads: that compiled.
        seconds: what all of it took.
        error: why some were not compiled; empty where all were. They are compiled when they are
            first launched.
    """

    compiled: int
    found: int
    threads: int
    seconds: float
    error: str = ""

    def __str__(self) -> str:
        if self.error:
            return "kernels compiled one after the other, as compiling them at once failed"
        cached = f"{self.found} kernels found in Triton's cache"
        if not self.compiled:
            return f"{cached} in {self.seconds:.1f} s"
        made = f"{self.compiled} kernels compiled by {self.threads} threads in {self.seconds:.1f} s"
        return f"{made}, {cached}" if self.found else made


def compile_ahead(launches: Sequence[Launch], threads: int) -> Ahead:
    """Compile the kernels of launches for the current device; nothing is launched.

    After a failure none of them counts as compiled in this process, so that each is looked up or
    compiled anew when it is launched, and tells its own error.

    Args:
        launches: as from `collect`; equal ones are compiled once.
        threads: that compile, at most 16.
    """
    began = perf_counter()
    threads = max(1, min(threads, MOST_THREADS))
    real = [launch for launch in launches if all(launch.grid)]
    hits: list[bool] = []
    try:
        with _listening(hits), _Pool(threads) as pool:
            with triton.AsyncCompileMode(pool, ignore_errors=True):
                for launch in real:
                    kernel = launch.kernel
                    kernel.warmup(*launch.arguments, grid=launch.grid, **launch.constants)
            failed = [error for each in pool.submitted if (error := each.exception()) is not None]
    except Exception as error:  # noqa: BLE001, a compiler may raise anything; launches compile too
        failed = [error]
    if failed:
        for kernel in {id(launch.kernel): launch.kernel for launch in real}.values():
            kernel.device_caches.clear()
        log.warning("%d not compiled ahead, the first: %s", len(failed), _said(failed[0]))
    found = sum(hits)
    seconds = perf_counter() - began
    why = _said(failed[0]) if failed else ""
    return Ahead(len(hits) - found, found, threads, seconds, why)


def _said(error: BaseException) -> str:
    """The last line of a compiler's message, which tells what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__


class _Pool(ThreadPoolExecutor):
    """Threads that keep what was submitted to them."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads, thread_name_prefix="compile")
        self.submitted: list[Future[Any]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """See `ThreadPoolExecutor.submit`; what fails by chance is tried again."""
        future = super().submit(_tried, partial(fn, *args, **kwargs))
        self.submitted.append(future)
        return future


def _tried(work: Callable[[], Any]) -> Any:
    for _ in range(_TRIES - 1):
        try:
            return work()
        except Exception as error:
            if not _by_chance(error):
                raise
    return work()


def _by_chance(error: BaseException | None) -> bool:
    """Whether it may go well the next time.

    Before Python 3.13 threads that parse at once share a count of their depth, and `ast.parse`
    fails where another one changed it: once in some hundred kernels.
    """
    while error is not None:
        if isinstance(error, SystemError | RecursionError):
            return True
        error = error.__cause__
    return False


@contextmanager
def _listening(hits: list[bool]) -> Iterator[None]:
    """Note down, for each kernel that Triton comes by, whether its cache had it."""
    knobs = triton.knobs.compilation
    before = knobs.listener

    def listener(*, cache_hit: bool, **told: Any) -> None:
        hits.append(cache_hit)
        if before is not None:
            before(cache_hit=cache_hit, **told)

    knobs.listener = listener
    try:
        yield
    finally:
        knobs.listener = before
