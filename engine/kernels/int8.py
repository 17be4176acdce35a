"""Products of 8-bit activations and 8-bit weights (W8A8), with float results.

Weights are symmetric, one scale an output channel. Activations are asymmetric, one scale and zero
point a row, found as they come: a row's bytes then span exactly what it holds, which on SmolLM2
halves the loss of symmetric ones (docs/decisions).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.kernels import reference
from engine.kernels.checks import expect
from engine.kernels.native import int8 as native
from engine.kernels.native.library import LANES, SUFFIXES, available


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
    """A weight w = scales · values, in the layout of the kernel that will run it.

    Attributes:
        values: int8 [outputs, inputs]; or, ``packed``, [panels, inputs / 4, 64, 4].
        scales: float32 [outputs], of packed weights padded to whole panels, like the next two.
        sums: int32, the sum of each channel's values.
        bias: float32, zeros where there is none.
        outputs, inputs: the weight's shape.
        packed: whether it is laid out for the native kernel.
    """

    values: Tensor
    scales: Tensor
    sums: Tensor
    bias: Tensor
    outputs: int
    inputs: int
    packed: bool


def quantise_weight(weight: Tensor, bias: Tensor | None = None) -> Int8Weight:
    """Round a weight to 8 bits, each output channel to its own scale.

    Args:
        weight: [outputs, inputs], any float dtype.
        bias: [outputs].

    Raises:
        ValueError: a shape is wrong.
    """
    expect("weight", weight, (None, None))
    outputs, inputs = weight.shape
    values, scales = reference.quantise_channels(weight)
    sums = values.sum(1, dtype=torch.int32)
    shift = torch.zeros(outputs) if bias is None else bias.detach().float()
    expect("bias", shift, (outputs,))
    packed = weight.device.type == "cpu" and inputs % LANES == 0 and available()
    if packed:
        values = native.pack_panels(values)
        edge = (0, -outputs % native.PANEL)
        scales, sums, shift = (F.pad(each, edge) for each in (scales, sums, shift))
    return Int8Weight(values, scales, sums, shift, outputs, inputs, packed)


def quantise_rows(x: Tensor) -> Int8Rows:
    """Round each row to 8 bits between its least and greatest value, zero among them.

    Args:
        x: [T, inputs], float32 or bfloat16; rows may stand apart.

    Raises:
        ValueError: the rows are not dense.
    """
    expect("x", x, (None, None))
    done = native.quantise_rows(x)
    return Int8Rows(*(reference.quantise_rows(x) if done is None else done))


def int8_linear(x: Int8Rows, weight: Int8Weight, dtype: torch.dtype) -> Tensor:
    """x weightᵀ + bias, summed exactly in int32.

    Args:
        x: [T, inputs].
        weight: [outputs, inputs].
        dtype: the result's.

    Returns:
        [T, outputs].

    Raises:
        ValueError: the shapes do not fit.
    """
    expect("x", x.values, (None, weight.inputs), torch.uint8)
    if not weight.packed or dtype not in SUFFIXES:
        wide = _unpacked(weight)
        product = reference.int8_linear(x.values, x.scales, x.zeros, *wide)
        return product.to(dtype)
    out = torch.empty((x.values.shape[0], weight.outputs), dtype=dtype)
    native.int8_linear(
        x.values, x.scales, x.zeros, weight.values, weight.scales, weight.sums, weight.bias, out
    )
    return out


def _unpacked(weight: Int8Weight) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    values = weight.values
    if weight.packed:
        values = values.permute(0, 2, 1, 3).flatten(0, 1).flatten(1)
    return tuple(  # type: ignore[return-value]
        each[: weight.outputs] for each in (values, weight.scales, weight.sums, weight.bias)
    )
