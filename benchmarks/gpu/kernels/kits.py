"""The kernels that are measured, and what divides attention for them."""

from functools import cache
from importlib.util import find_spec

import torch

from engine.kernels.fused.backend import DeviceBackend, Limits
from engine.kernels.fused.device import Device
from engine.kernels.fused.task_maker import TaskMaker
from engine.kernels.reference.device_sampling import ReferenceSampling
from engine.kernels.reference.fused import ReferenceFused
from engine.kernels.reference.stand_in import StandInBackend
from engine.kernels.triton.backend import TritonBackend
from engine.kernels.triton.launch import INTERPRETED
from gpu.kernels.cases import Case, Kit
from gpu.kernels.inputs import BLOCK_SIZE, Sizes
from gpu.shapes import model_config

REFERENCE = Kit(ReferenceFused(), ReferenceSampling())


class Kits:
    """Kernels by model; on a GPU Triton's, else the reference's but for cases that say otherwise.

    Args:
        device: where tensors are.
        dtype: of models.
        sizes: the largest steps.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, sizes: Sizes) -> None:
        self._on_gpu = device.type == "cuda"
        self._interpreted = not self._on_gpu and INTERPRETED and find_spec("triton") is not None
        self._dtype, self._sizes = dtype, sizes
        self._device: Device
        self._backend: DeviceBackend
        if self._on_gpu:
            self._backend = TritonBackend(torch.cuda.get_device_capability(device))
            self._device = self._backend.open(device)
        else:
            self._backend = TritonBackend(None) if self._interpreted else StandInBackend()
            self._device = StandInBackend().open(device)
        self._kit = cache(self._new_kit)
        self.maker = cache(self._new_maker)

    def of(self, case: Case) -> Kit:
        """The kernels that a case is measured with."""
        if self._on_gpu or (self._interpreted and case.interpreted):
            return self._kit(case.model)
        return REFERENCE

    def _new_kit(self, model: str) -> Kit:
        pieces = self.maker(model, True).max_pieces
        fused = self._backend.passes(self._device, self._limits(model, True), pieces)
        return Kit(fused, self._backend.sampling(self._device))

    def _new_maker(self, model: str, cascade: bool) -> TaskMaker:
        """What divides attention for a model, with or without segments."""
        return self._backend.task_maker(self._device, self._limits(model, cascade))

    def _limits(self, model: str, cascade: bool) -> Limits:
        shape = model_config(model, toy=not self._on_gpu)
        sizes = self._sizes
        return Limits(
            shape, sizes.max_tokens, sizes.max_sequences, BLOCK_SIZE, self._dtype, cascade
        )
