"""Weights of 4 or 8 bits in groups along their inputs, and their products with 8-bit activations.

Each group has a float32 scale and a float32 value for zero: w = scale · v + low. So one layout
takes the grids of GGUF's Q4_0, Q4_1 and Q8_0, of GPTQ and of AWQ without a change. Activations are
rounded to 8 bits, symmetrically, each group of a row to a scale of its own, so that an outlier
channel costs precision in its own group only (W4A8).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.kernels.backend import Backend
from engine.kernels.expect import expect


@dataclass(frozen=True, slots=True)
class GroupedWeight:
    """A weight w = scales · values + lows.

    Attributes:
        values: uint8 [outputs, inputs], below ``2 ** bits``.
        scales, lows: float32 [outputs, groups]; a group is ``inputs / groups`` neighbours.
        bits: 4 or 8.
    """

    values: Tensor
    scales: Tensor
    lows: Tensor
    bits: int

    @property
    def group(self) -> int:
        """Inputs of a group."""
        return self.values.shape[1] // self.scales.shape[1]

    def dequantize(self) -> Tensor:
        """float32 [outputs, inputs]."""
        wide = self.values.view(*self.scales.shape, self.group).float()
        return torch.flatten(wide * self.scales[:, :, None] + self.lows[:, :, None], 1)


def quantize_groups(
    backend: Backend,
    weight: Tensor,
    group: int | None = 32,
    *,
    bits: int = 4,
    symmetric: bool = False,
) -> GroupedWeight:
    """Round a weight to nearest, each group to its own steps (RTN).

    Args:
        backend: computes it.
        weight: [outputs, inputs], any float dtype.
        group: inputs that share a scale; ``None`` is one group a channel.
        bits: 4 or 8.
        symmetric: steps lie evenly around zero, as in GGUF's Q4_0. Otherwise they run from the
            group's minimum to its maximum, as in its Q4_1.

    Raises:
        ValueError: the weight is no dense matrix, or its inputs are not a multiple of the group.
    """
    expect("weight", weight, (None, None))
    inputs = weight.shape[1]
    size = inputs if group is None else group
    if inputs % size:
        raise ValueError(f"{inputs} inputs do not divide into groups of {size}.")
    values, scales, lows = backend.quantize_groups(weight, size, bits, symmetric)
    return GroupedWeight(values, scales, lows, bits)


def grouped_linear(backend: Backend, x: Tensor, weight: GroupedWeight) -> Tensor:
    """x weightᵀ, with x rounded to 8 bits group by group.

    Args:
        backend: computes it.
        x: [T, inputs], any float dtype.
        weight: [outputs, inputs].

    Returns:
        float32 [T, outputs].

    Raises:
        ValueError: the shapes do not fit.
    """
    expect("x", x, (None, weight.values.shape[1]))
    values, scales = backend.quantize_row_groups(x, weight.group)
    return backend.grouped_linear(values, scales, weight.values, weight.scales, weight.lows)
