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
from time import perf_counter
from typing import Any

import triton

from engine.kernels.triton.launch import Launch

MOST_THREADS = 16

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
    except Exception as error:  # noqa: BLE001, whatever it is, launching compiles too
        failed = [error]
    if failed:
        for kernel in {id(launch.kernel): launch.kernel for launch in real}.values():
            kernel.device_caches.clear()
        log.warning("%d kernels were not compiled ahead: %s", len(failed), failed[0])
    found = sum(hits)
    seconds = perf_counter() - began
    error_text = str(failed[0]) or type(failed[0]).__name__ if failed else ""
    return Ahead(len(hits) - found, found, threads, seconds, error_text)


class _Pool(ThreadPoolExecutor):
    """Threads that keep what was submitted to them."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads, thread_name_prefix="compile")
        self.submitted: list[Future[Any]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """See `ThreadPoolExecutor.submit`."""
        future = super().submit(fn, *args, **kwargs)
        self.submitted.append(future)
        return future


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
