"""The runtime of a GPU on a CPU: torch's passes on a device that is none. For tests."""

import torch

from engine.config import ModelConfig
from engine.kernels.backend import Service
from engine.kernels.fused.backend import Limits
from engine.kernels.fused.cache import block_bytes
from engine.kernels.fused.device import Device, Launches
from engine.kernels.fused.kernels import FusedKernels
from engine.kernels.fused.sampling import SamplingKernels
from engine.kernels.fused.stand_in import StandIn
from engine.kernels.fused.task_maker import TaskMaker
from engine.kernels.reference.backend import ReferenceBackend
from engine.kernels.reference.device_sampling import ReferenceSampling
from engine.kernels.reference.fused import ReferenceFused


class StandInBackend(ReferenceBackend):
    """A `DeviceBackend` that needs no GPU, and is slow."""

    name = "stand-in"
    title = "the stand-in's kernels"
    device_types = frozenset({"cpu"})

    def block_bytes(self, model: ModelConfig, block_size: int, cache_dtype: torch.dtype) -> int:
        """See `Backend.block_bytes`; 8 bits have scales beside them."""
        return block_bytes(model, block_size, cache_dtype)

    def service(self, device: torch.device, dtype: torch.dtype) -> Service:
        """See `Backend.service`."""
        caches = (dtype, torch.int8, torch.float8_e4m3fn)
        return Service(("none", "int8", "fp8", "int4"), caches, int8_cache_pays=False)

    def open(self, torch_device: torch.device) -> Device:
        """See `DeviceBackend.open`."""
        return StandIn()

    def task_maker(self, device: Device, limits: Limits) -> TaskMaker:
        """See `DeviceBackend.task_maker`. Its division is made, and not looked at."""
        group = -(-limits.model.num_heads // limits.model.num_kv_heads)
        rows = max(16, 1 << (group - 1).bit_length())
        shape = limits.attention_shape(device.multiprocessors, (rows, 4 * rows), (rows, 4 * rows))
        return TaskMaker(shape)

    def passes(self, device: Device, limits: Limits, max_pieces: int) -> FusedKernels:
        """See `DeviceBackend.passes`."""
        return ReferenceFused()

    def compile_ahead(self, work: Launches, threads: int) -> str:
        """See `DeviceBackend.compile_ahead`. Torch compiles nothing."""
        return ""

    def sampling(self, device: Device) -> SamplingKernels:
        """See `DeviceBackend.sampling`."""
        return ReferenceSampling()
