"""What this machine could do for a model that never ran: its GPU by name, or its processor."""

import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from storage.estimates.roofline import Device, gpu

GPU_FILES = Path("/proc/driver/nvidia/gpus")
_SECONDS = 0.02
_WIDTH = 384
_READ_BYTES = 64 * 1024 * 1024
_STEP_SECONDS = 0.001
# Engines round to 8 bits there unless they are told otherwise, and a processor that has products of
# these does four in the time of one of floats.
_OF_EIGHT_BITS = 4.0


def device_of(setting: str, gpus: int, *, measure: bool) -> Device:
    """The device that an engine with this setting would run on.

    Args:
        setting: ``TIDEMILL_DEVICE``.
        gpus: how many GPUs this process may use.
        measure: whether a processor is measured, which takes a tenth of a second.
    """
    if gpus and setting.startswith(("auto", "cuda")):
        return gpu(gpu_name(GPU_FILES))
    return measured_processor() if measure else usual_processor()


def gpu_name(folder: Path) -> str:
    """What the driver calls this machine's first GPU; empty where it does not tell."""
    for path in sorted(folder.glob("*/information")):
        for line in path.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "Model":
                return value.strip()
    return ""


@lru_cache(maxsize=1)
def measured_processor() -> Device:
    """This machine's processor, by a short product and a short read; measured once."""
    left = np.full((_WIDTH, _WIDTH), 0.5, dtype=np.float32)
    memory = np.ones(_READ_BYTES // 8, dtype=np.int64)
    product = _each(lambda: left @ left)
    read = _each(lambda: memory.sum())
    return _processor(_OF_EIGHT_BITS * 2.0 * _WIDTH**3 / product, _READ_BYTES / read)


def usual_processor() -> Device:
    """A processor as servers have them, by two of its cores."""
    return _processor(operations=2e12, bandwidth=4e10)


def _processor(operations: float, bandwidth: float) -> Device:
    return Device("cpu", operations, bandwidth, _STEP_SECONDS, gpu=False)


def _each(call: Callable[[], object]) -> float:
    """Seconds of a call: the least of those within a moment, as others only disturb."""
    call()
    best, began = float("inf"), time.perf_counter()
    while True:
        before = time.perf_counter()
        call()
        now = time.perf_counter()
        best = min(best, now - before)
        if now - began >= _SECONDS or now == before:
            return max(best, 1e-6)
