"""The forms that a weight has on a device."""

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.kernels.grouped import GroupedWeight
from engine.kernels.int8 import Int8Weight


@dataclass(frozen=True, slots=True)
class Float8Weight:
    """A weight w = scales · values.

    Attributes:
        values: float8_e4m3fn [outputs, inputs].
        scales: float32 [outputs].
    """

    values: Tensor
    scales: Tensor

    def dequantize(self) -> Tensor:
        """float32 [outputs, inputs]."""
        return self.values.float() * self.scales[:, None]


@dataclass(frozen=True, slots=True)
class Int4Weight:
    """A weight of 4 bits in a layout of a device's kernels.

    w = scales · (v - 8), or w = scales · v + lows.

    Attributes:
        packed: uint8; two values a byte, in whatever order the kernels want.
        scales: [groups, outputs], float16 or float32; there may be more outputs, to fill tiles.
        lows: as scales; ``None`` where all are ``-8 · scales``.
        outputs, inputs, group: the weight's shape, and the inputs that share a scale.
    """

    packed: Tensor
    scales: Tensor
    lows: Tensor | None
    outputs: int
    inputs: int
    group: int


DeviceWeight = Tensor | Int8Weight | Float8Weight | Int4Weight | GroupedWeight
"""A `GroupedWeight` is what `FusedKernels.pack` makes an `Int4Weight` of."""

_ROWS = 4096  # of a weight that are rounded at a time


def quantize_float8(weight: Tensor) -> Float8Weight:
    """Round a weight [outputs, inputs] of any float dtype, each output channel to its own scale.

    The largest value becomes 448, the largest of float8_e4m3fn (Micikevicius et al. 2022). Rows of
    zeros have scale 1.
    """
    scales = weight.new_empty(len(weight), dtype=torch.float32)
    values = torch.empty_like(weight, dtype=torch.float8_e4m3fn)
    for start in range(0, len(weight), _ROWS):  # whole copies of a head would be large
        rows = slice(start, start + _ROWS)
        wide = weight[rows].detach().float()
        found = wide.abs().amax(1) / 448
        scales[rows] = torch.where(found > 0, found, 1.0)
        values[rows] = (wide / scales[rows, None]).to(torch.float8_e4m3fn)
    return Float8Weight(values, scales)
