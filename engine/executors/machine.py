"""What the machine offers: memory, CPUs and their instructions."""

import ctypes
import os
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
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions that multiply bfloat16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return False
    flags = next((x for x in cpuinfo.read_text().splitlines() if x.startswith("flags")), "")
    return "avx512_bf16" in flags or "amx_bf16" in flags
