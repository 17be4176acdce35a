"""What this machine's NVIDIA GPUs serve, and what is missing for them."""

import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from engine.executors.machine import GIB
from engine.kernels.triton.backend import OLDEST, WITH_FLOAT8

TABLES = ((8, 0), (8, 9), (9, 0))
"""Compute capabilities for which kernel configurations are shipped; others go by a rule."""

_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU.

    Attributes:
        name: what its maker calls it.
        capability: compute capability.
        memory: bytes, of which ``free`` are free.
    """

    name: str
    capability: tuple[int, int]
    memory: int
    free: int


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """What was found on a machine.

    Attributes:
        gpus: those that torch sees, in its order.
        driver: version of NVIDIA's driver; empty where none is loaded.
        torch: version of torch, ``cuda`` that of the CUDA it was built with; empty for none.
        triton: version of Triton; empty where it is not installed.
        refusal: why torch sees no GPU though it was built for one; empty where it does.
    """

    gpus: tuple[Gpu, ...]
    driver: str
    torch: str
    cuda: str
    triton: str
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a report.

    Attributes:
        ok: whether all is well.
        found: what was found.
        hint: what to do where it is not.
    """

    ok: bool
    found: str
    hint: str = ""


def report(facts: GpuFacts) -> list[Finding]:
    """A line for each GPU and for what keeps one from being used; none where there is no GPU."""
    if facts.gpus:
        return [_of_gpu(facts, index) for index in range(len(facts.gpus))]
    if not facts.driver:
        return []
    where = f"an NVIDIA GPU is here (driver {facts.driver})"
    if not facts.cuda:
        return [
            Finding(
                False,
                f"{where}, but torch {facts.torch} is built without CUDA",
                "Install torch for CUDA: https://pytorch.org/get-started/locally",
            )
        ]
    return [
        Finding(
            False,
            f"{where}, but torch {facts.torch} for CUDA {facts.cuda} cannot use it: "
            f"{facts.refusal or 'it is hidden from this process'}",
            "Update the driver, or install a torch for an older CUDA; see CUDA_VISIBLE_DEVICES.",
        )
    ]


def _of_gpu(facts: GpuFacts, index: int) -> Finding:
    gpu = facts.gpus[index]
    capability = ".".join(map(str, gpu.capability))
    found = (
        f"GPU {index}: {gpu.name}, compute capability {capability}, {gpu.free / GIB:.0f} of "
        f"{gpu.memory / GIB:.0f} GiB free, driver {facts.driver or 'unknown'}"
    )
    if gpu.capability < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        return Finding(
            False,
            f"{found}; not served: the kernels need compute capability {oldest}",
            "Without them torch computes, slowly; TIDEMILL_DEVICE=cpu uses the processor.",
        )
    if not facts.triton:
        return Finding(
            False,
            f"{found}; not served: the kernels need Triton, which is not installed",
            "pip install 'triton>=3.6'",
        )
    formats = ["bf16", "fp16", "int8", *(["fp8"] if gpu.capability >= WITH_FLOAT8 else []), "int4"]
    found += f"; Triton {facts.triton} serves weights in {', '.join(formats)}"
    if gpu.capability < WITH_FLOAT8:
        found += f", and not fp8, which needs {'.'.join(map(str, WITH_FLOAT8))}"
    if gpu.capability not in TABLES:
        found += "; no tile sizes are shipped for it, a rule picks them"
    return Finding(True, found)


def gather() -> GpuFacts:
    """The facts of this machine. Takes no memory on a GPU that lasts."""
    sees = torch.cuda.is_available()
    refusal = ""
    driver = _driver_version()
    if driver and torch.version.cuda and not sees:
        refusal = _why_not()
    return GpuFacts(
        gpus=tuple(_gpu(index) for index in range(torch.cuda.device_count())) if sees else (),
        driver=driver,
        torch=torch.__version__,
        cuda=torch.version.cuda or "",
        triton=_version("triton"),
        refusal=refusal,
    )


def _gpu(index: int) -> Gpu:
    properties = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    return Gpu(properties.name, (properties.major, properties.minor), total, free)


def _driver_version(path: Path = _DRIVER) -> str:
    """Of NVIDIA's kernel module, that also a container sees."""
    if not path.is_file():
        return ""
    found = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)", path.read_text())
    return found[1] if found else "unknown"


def _why_not() -> str:
    """Why CUDA does not start, in one line."""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return str(error).strip().splitlines()[0].rstrip(".")
    return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
