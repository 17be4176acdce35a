"""The forms that a weight has on a device."""

from dataclasses import dataclass

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
        scales: [groups, outputs], of the model's dtype.
        lows: [groups, outputs], of the model's dtype; ``None`` where all are ``-8 · scales``.
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
