"""How a checkpoint's weights become weights of few bits while they are loaded."""

from torch import Tensor

from engine.config import ModelConfig
from engine.kernels.backend import Backend
from engine.kernels.fused.weights import Float8Weight, quantize_float8
from engine.kernels.grouped import GroupedWeight, quantize_groups
from engine.kernels.int8 import Int8Weight, quantize_weight
from engine.models.decoder import Decoder
from engine.quantize.rotate import RotatedWeights


class Int8Weights:
    """8 bits, each output channel with a scale, in a rotated basis.

    Args:
        config: the model.
        backend: rounds the weights.
    """

    def __init__(self, config: ModelConfig, backend: Backend) -> None:
        self._backend = backend
        self._rotated = RotatedWeights(config, backend)

    def projection(self, decoder: Decoder, path: str, weight: Tensor) -> Int8Weight:
        """See `engine.models.loading.Preparation`."""
        return quantize_weight(self._backend, self._rotated.projection(decoder, path, weight))

    def rest(self, decoder: Decoder) -> None:
        """See `engine.models.loading.Preparation`."""
        self._rotated.rest(decoder)


class Float8Weights:
    """float8_e4m3fn, each output channel with a scale."""

    def projection(self, decoder: Decoder, path: str, weight: Tensor) -> Float8Weight:
        """See `engine.models.loading.Preparation`."""
        return quantize_float8(weight)

    def rest(self, decoder: Decoder) -> None:
        """Nothing else changes."""


class Int4Weights:
    """4 bits in groups along the inputs, rounded to nearest."""

    def __init__(self, group: int | None, backend: Backend, *, symmetric: bool) -> None:
        self._backend = backend
        self._group, self._symmetric = group, symmetric

    def projection(self, decoder: Decoder, path: str, weight: Tensor) -> GroupedWeight:
        """See `engine.models.loading.Preparation`."""
        return quantize_groups(self._backend, weight, self._group, symmetric=self._symmetric)

    def rest(self, decoder: Decoder) -> None:
        """Nothing else changes."""
