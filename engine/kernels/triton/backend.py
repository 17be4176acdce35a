"""Triton's kernels as a backend. Triton itself is imported once the first step is prepared."""

from importlib.util import find_spec

import torch

from engine.config import ModelConfig
from engine.kernels.backend import Service
from engine.kernels.fused.backend import Limits
from engine.kernels.fused.cache import block_bytes
from engine.kernels.fused.cuda import CudaDevice
from engine.kernels.fused.device import Device, Launches
from engine.kernels.fused.kernels import FusedKernels
from engine.kernels.fused.sampling import SamplingKernels
from engine.kernels.fused.task_maker import TaskMaker
from engine.kernels.reference.backend import ReferenceBackend

OLDEST = (8, 0)
"""The compute capability from which on bfloat16 and asynchronous copies are in hardware."""

WITH_FLOAT8 = (8, 9)

_WIDEST_HEAD = 256


class TritonBackend(ReferenceBackend):
    """NVIDIA GPUs. Whole steps run in fused passes; what loading needs is the reference's.

    Args:
        capability: of the GPU; ``None`` where there is none.
    """

    name = "triton"
    title = "Triton's kernels"
    device_types = frozenset({"cuda"})

    def __init__(self, capability: tuple[int, int] | None) -> None:
        super().__init__()
        self._capability = capability

    def obstacle(self, model: ModelConfig, block_size: int, dtype: torch.dtype) -> str | None:
        """See `Backend.obstacle`."""
        if find_spec("triton") is None:
            return "the package triton is not installed"
        if self._capability is None or self._capability < OLDEST:
            return f"Triton's kernels need a GPU of compute capability {_dotted(OLDEST)} or newer"
        if block_size & (block_size - 1):
            return f"blocks of {block_size} tokens are no power of two"
        if model.head_dim > _WIDEST_HEAD:
            return f"heads of {model.head_dim} are wider than {_WIDEST_HEAD}"
        return None

    def block_bytes(self, model: ModelConfig, block_size: int, cache_dtype: torch.dtype) -> int:
        """See `Backend.block_bytes`; 8 bits have scales beside them."""
        return block_bytes(model, block_size, cache_dtype)

    def service(self, device: torch.device, dtype: torch.dtype) -> Service:
        """See `Backend.service`."""
        if self._capability is not None and self._capability < WITH_FLOAT8:
            return Service(("none", "int8", "int4"), (dtype, torch.int8), int8_cache_pays=False)
        caches = (dtype, torch.int8, torch.float8_e4m3fn)
        return Service(("none", "int8", "fp8", "int4"), caches, int8_cache_pays=False)

    def open(self, torch_device: torch.device) -> Device:
        """See `DeviceBackend.open`."""
        return CudaDevice(torch_device)

    def task_maker(self, device: Device, limits: Limits) -> TaskMaker:
        """See `DeviceBackend.task_maker`."""
        from engine.kernels.triton.fused import task_maker

        return task_maker(device.torch_device, limits)

    def passes(self, device: Device, limits: Limits, max_pieces: int) -> FusedKernels:
        """See `DeviceBackend.passes`."""
        from engine.kernels.triton.fused import TritonFused

        return TritonFused(device.torch_device, limits, max_pieces)

    def compile_ahead(self, work: Launches, threads: int) -> str:
        """See `DeviceBackend.compile_ahead`. What fails here is compiled where it is launched."""
        from engine.kernels.triton.ahead import compile_ahead
        from engine.kernels.triton.launch import INTERPRETED, collect

        if INTERPRETED:
            return ""
        with collect() as launches:
            work()
        return str(compile_ahead(launches, threads))

    def sampling(self, device: Device) -> SamplingKernels:
        """See `DeviceBackend.sampling`."""
        from engine.kernels.triton.sampling.sampling import TritonSampling

        return TritonSampling()


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
