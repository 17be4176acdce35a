"""Compiles launches in processes of their own, with a stand-in for Triton's driver."""

import ctypes
import json
import multiprocessing
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

from compiling.jobs import Job
from compiling.outcome import Compiled

KEPT = Path.home() / ".cache" / "tidemill" / "compiled"


class StandInDriver:
    """Answers what Triton asks of a driver while it compiles."""

    def __init__(self, capability: int) -> None:
        self._capability = capability

    def get_current_target(self) -> GPUTarget:
        """The card to compile for."""
        return GPUTarget("cuda", self._capability, 32)

    def get_current_device(self) -> int:
        """A number for each card, as Triton keeps what it compiled by device."""
        return self._capability

    def get_current_stream(self, device: int | None = None) -> int:
        """None is there."""
        return 0


def compile_all(found: list[Job], workers: int, *, keep_code: bool = False) -> Iterator[Compiled]:
    """What comes of each, in order; from what is kept, or in as many worker processes.

    Args:
        found: what is to be compiled.
        workers: processes.
        keep_code: leave the code in Triton's own cache, for those who run it; all is compiled.
    """
    kept = {} if keep_code else {job.key: row for job in found if (row := _kept(job)) is not None}
    fresh = [job for job in found if job.key not in kept]
    context = multiprocessing.get_context("fork")  # launches need not be sent
    with tempfile.TemporaryDirectory() as place:
        begin = (fresh, None if keep_code else place)
        with ProcessPoolExecutor(max(1, workers), context, _begin, begin) as pool:
            futures = {job.key: pool.submit(_compile, index) for index, job in enumerate(fresh)}
            for job in found:
                row = kept.get(job.key)
                if row is None:
                    try:
                        row = futures[job.key].result()
                        _keep(job, row)
                    except BrokenExecutor:
                        row = job.outcome(error="the compiler ended its process, here or elsewhere")
                yield row


_END_WITH_PARENT = 1  # PR_SET_PDEATHSIG
_jobs: list[Job] = []  # of a worker process


def _begin(found: list[Job], folder: str | None) -> None:
    # Whoever started it may be killed, and a compiler would go on for minutes.
    ctypes.CDLL(None).prctl(_END_WITH_PARENT, signal.SIGKILL)
    os.dup2(2, 1)  # Triton prints what ptxas says; the rows go to the true output
    torch.set_num_threads(1)
    if folder is not None:
        triton.knobs.cache.dir = folder
    _jobs[:] = found


def _compile(index: int) -> Compiled:
    job = _jobs[index]
    launch = job.launch
    driver.set_active(StandInDriver(job.capability))
    began = time.perf_counter()
    try:
        code = launch.kernel.warmup(*launch.arguments, grid=launch.grid, **launch.constants)
    except Exception as error:  # noqa: BLE001, whatever a compiler raises is this kernel's fault
        return job.outcome(error=f"{type(error).__name__}: {_said(error)}")
    seconds = time.perf_counter() - began
    registers, stack = _resources(code.asm["cubin"])
    return job.outcome(
        seconds=seconds,
        registers=registers,
        stack_bytes=stack,
        shared_bytes=code.metadata.shared,
    )


def _said(error: Exception) -> str:
    """The telling line of a compiler's message: the first one of a fatal error, or the last one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "fatal" in line), lines[-1] if lines else "")


def _resources(cubin: bytes) -> tuple[int, int]:
    """Registers and bytes of stack of a thread, as Triton's own tool reads them off the code."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run(
            [tool, "-res-usage", file.name], capture_output=True, text=True, check=True
        )
    found = re.search(r"REG:(\d+) STACK:(\d+)", done.stdout)
    assert found, done.stdout
    return int(found[1]), int(found[2])


def _kept(job: Job) -> Compiled | None:
    path = KEPT / f"{job.key}.json"
    if not path.is_file():
        return None
    return job.outcome(**json.loads(path.read_text()))


def _keep(job: Job, row: Compiled) -> None:
    if row.error:
        return
    names = ("seconds", "registers", "stack_bytes", "shared_bytes")
    KEPT.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=KEPT, delete=False) as file:
        json.dump({name: getattr(row, name) for name in names}, file)
    Path(file.name).replace(KEPT / f"{job.key}.json")
