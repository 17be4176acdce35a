"""Products of 8-bit activations and 8-bit weights (W8A8), with float results.

Both are symmetric: weights with a scale for each output channel, activations with one for each row,
found as they come.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.kernels.backend import Backend
from engine.kernels.expect import expect


@dataclass(frozen=True, slots=True)
class Int8Rows:
    """Activations x = scales · values.

    Attributes:
        values: int8 [T, inputs].
        scales: float32 [T].
    """

    values: Tensor
    scales: Tensor


@dataclass(frozen=True, slots=True)
class Int8Weight:
    """A weight w = scales · values.

    Attributes:
        values: int8 [outputs, inputs].
        scales: float32 [outputs].
    """

    values: Tensor
    scales: Tensor

    def dequantize(self) -> Tensor:
        """float32 [outputs, inputs]."""
        return self.values.float() * self.scales[:, None]


def quantize_weight(backend: Backend, weight: Tensor) -> Int8Weight:
    """Round a weight [outputs, inputs] of any float dtype, each output channel to its own scale.

    Raises:
        ValueError: the weight is no dense matrix.
    """
    expect("weight", weight, (None, None))
    return Int8Weight(*backend.quantize_channels(weight))


def quantize_rows(backend: Backend, x: Tensor) -> Int8Rows:
    """Round each row to 8 bits.

    Args:
        backend: computes it.
        x: [T, inputs], of any float dtype; rows may stand apart.

    Raises:
        ValueError: the rows are not dense.
    """
    expect("x", x, (None, None))
    return Int8Rows(*backend.quantize_rows(x))


def int8_linear(backend: Backend, x: Int8Rows, weight: Int8Weight) -> Tensor:
    """x weightᵀ, summed exactly in int32.

    Args:
        backend: computes it.
        x: [T, inputs].
        weight: [outputs, inputs].

    Returns:
        float32 [T, outputs].

    Raises:
        ValueError: the shapes do not fit.
    """
    expect("x", x.values, (None, weight.values.shape[1]), torch.int8)
    return backend.int8_linear(x.values, x.scales, weight.values, weight.scales)
