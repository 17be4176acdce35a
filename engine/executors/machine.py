"""What the machine offers: memory, CPUs and their instructions."""

import ctypes
import math
import os
import platform
import sys
from pathlib import Path

import torch

GIB = 1024**3


def free_memory(device: torch.device) -> int:
    """Bytes of memory that this process may still take on a device."""
    if device.type == "cuda":
        free, _total = torch.cuda.mem_get_info(device)
        return free
    return available_memory()


def available_memory() -> int:
    """Bytes of memory this process may still take: the machine's or its control group's."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    meminfo = Path("/proc/meminfo")
    if sys.platform == "linux" and meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and (text := limit.read_text().strip()) != "max":
        free = min(free, int(text) - int(used.read_text()))
    return max(free, 0)


def give_back_memory() -> None:
    """Return to the system what loading has left free in this process: 190 MB of SmolLM2's."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
    if trim is not None:
        trim(0)


def cpu_count() -> int:
    """CPUs that this process may use, by its affinity and its control groups' quotas.

    A quota of one and a half CPUs counts as two: two threads that are stopped a quarter of the time
    are faster than one.
    """
    quota = cpu_quota(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    allowed = len(os.sched_getaffinity(0))
    return allowed if quota is None else min(allowed, max(1, math.ceil(quota)))


def cpu_quota(listing: Path, mounted: Path) -> float | None:
    """The least CPU time a second that the control groups of a process may use.

    Args:
        listing: the process's control groups, as ``/proc/self/cgroup`` has them.
        mounted: where control groups are mounted, those of version 1 in a folder a controller.

    Returns:
        CPU seconds a second; ``None`` if nothing limits them.
    """
    try:
        lines = [line.split(":", 2) for line in listing.read_text().splitlines()]
    except OSError:
        return None
    quotas: list[float] = []
    for _, controllers, group in lines:
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = mounted / controllers
        for path in ("/", *_ancestors(group)):
            quotas += _quota(root / path.lstrip("/"))
    return min(quotas, default=None)


def _ancestors(group: str) -> list[str]:
    names = group.strip("/").split("/")
    return ["/".join(names[: length + 1]) for length in range(len(names))]


def _quota(folder: Path) -> list[float]:
    """A control group's own limit, if it has one: of version 2, or of version 1."""
    try:
        if (limit := folder / "cpu.max").exists():
            quota, period = limit.read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        return [int(quota) / int(period)] if int(quota) > 0 else []
    except (OSError, ValueError):  # ValueError: "max"
        return []


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions that multiply bfloat16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return False
    flags = next((x for x in cpuinfo.read_text().splitlines() if x.startswith("flags")), "")
    return "avx512_bf16" in flags or "amx_bf16" in flags


def hardware_name(device: torch.device) -> str:
    """What a GPU or this machine's processor calls itself; empty where nothing tells."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return processor_name(Path("/proc/cpuinfo"))


def processor_name(cpuinfo: Path) -> str:
    """The processor's name; ``cpuinfo`` is as Linux has it."""
    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = (line.partition(":") for line in lines)
    names = (value.strip() for name, _, value in fields if name.strip() == "model name")
    return next(filter(None, names), platform.machine())
