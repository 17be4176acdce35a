"""Products of 8-bit activations and 8-bit weights (W8A8), with float results.

Weights are symmetric, one scale an output channel. Activations are asymmetric, one scale and zero
point a row, found as they come: a row's bytes then span exactly what it holds, which on SmolLM2
halves the loss of symmetric ones (docs/decisions).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.kernels import reference
from engine.kernels.checks import expect


@dataclass(frozen=True, slots=True)
class Int8Rows:
    """Activations x = scales · (values - zeros).

    Attributes:
        values: uint8 [T, inputs].
        scales: float32 [T].
        zeros: int32 [T].
    """

    values: Tensor
    scales: Tensor
    zeros: Tensor


@dataclass(frozen=True, slots=True)
class Int8Weight:
    """A weight w = scales · values.

    Attributes:
        values: int8 [outputs, inputs].
        scales: float32 [outputs].
    """

    values: Tensor
    scales: Tensor

    def dequantise(self) -> Tensor:
        """float32 [outputs, inputs]."""
        return self.values.float() * self.scales[:, None]


def quantise_weight(weight: Tensor) -> Int8Weight:
    """Round a weight [outputs, inputs] of any float dtype, each output channel to its own scale.

    Raises:
        ValueError: the weight is no dense matrix.
    """
    expect("weight", weight, (None, None))
    return Int8Weight(*reference.quantise_channels(weight))


def quantise_rows(x: Tensor) -> Int8Rows:
    """Round each row to 8 bits between its least and greatest value, zero among them.

    Args:
        x: [T, inputs], of any float dtype; rows may stand apart.

    Raises:
        ValueError: the rows are not dense.
    """
    expect("x", x, (None, None))
    return Int8Rows(*reference.quantise_rows(x))


def int8_linear(x: Int8Rows, weight: Int8Weight) -> Tensor:
    """x weightᵀ, summed exactly in int32.

    Args:
        x: [T, inputs].
        weight: [outputs, inputs].

    Returns:
        float32 [T, outputs].

    Raises:
        ValueError: the shapes do not fit.
    """
    expect("x", x.values, (None, weight.values.shape[1]), torch.uint8)
    return reference.int8_linear(x.values, x.scales, x.zeros, weight.values, weight.scales)
