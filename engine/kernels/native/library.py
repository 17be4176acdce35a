"""The built library, loaded once; ``None`` where it cannot be had."""

import ctypes
import logging
from functools import cache

import torch

from engine.kernels.native.build import BuildFailed, build

log = logging.getLogger(__name__)

LANES = 16
SUFFIXES = {torch.float32: "f32", torch.bfloat16: "bf16"}


def available() -> bool:
    """Whether the kernels are built; builds them now (seconds, once a machine) if need be."""
    return library() is not None


@cache
def library() -> ctypes.CDLL | None:
    try:
        loaded = ctypes.CDLL(str(build()))
    except (BuildFailed, OSError) as error:
        log.warning("Native CPU kernels are off and attention runs slower: %s.", error)
        return None
    return loaded


def runs(*tensors: torch.Tensor) -> bool:
    """Whether these are dense, on a CPU and of a dtype with kernels, and there is a library."""
    first = tensors[0]
    return (
        first.device.type == "cpu"
        and first.dtype in SUFFIXES
        and all(tensor.is_contiguous() for tensor in tensors)
        and available()
    )
