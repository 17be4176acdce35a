"""Which devices a worker's engines run on: one engine process for each."""

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

DEVICE_FILES = Path("/dev")


def engine_devices(setting: str) -> tuple[str, ...]:
    """The devices of a setting, each to have an engine of its own.

    ``cuda`` and ``auto`` are every GPU that this process may use, where there is more than one. A
    list, as ``cuda:0,cuda:2``, is taken as it is.
    """
    named = tuple(filter(None, (each.strip() for each in setting.split(","))))
    if len(named) == 1 and named[0] in ("auto", "cuda"):
        count = count_gpus()
        if count > 1:
            return tuple(f"cuda:{index}" for index in range(count))
    return named or (setting,)


def count_gpus() -> int:
    """NVIDIA GPUs that torch would see here, found without importing it."""
    try:
        if "+cpu" in version("torch"):
            return 0
    except PackageNotFoundError:
        return 0
    present = sum(1 for path in DEVICE_FILES.glob("nvidia*") if path.name[6:].isdigit())
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return present
    named = [each for each in visible.split(",") if each.strip()]
    return min(present, len(named))
