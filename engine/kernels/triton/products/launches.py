"""The launches of a product, given how it is configured."""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from engine.kernels.fused.tensors import Activations
from engine.kernels.fused.weights import Float8Weight, Int4Weight
from engine.kernels.int8 import Int8Weight
from engine.kernels.triton.launch import INTERPRETED, launch
from engine.kernels.triton.products.configuration import Configuration
from engine.kernels.triton.products.eight import (
    eight_bit_product,
    eight_bit_product_by_descriptors,
)
from engine.kernels.triton.products.four import four_bit_product, group_sums
from engine.kernels.triton.products.nibbles import unpack
from engine.kernels.triton.products.splits import add_splits

_CELLS = 1024  # of a result that a program of `add_splits` sums
_WIDTH = 2048  # activations that a program of `group_sums` reads at once
_UNPACKED = 16  # outputs that a program of `unpack` writes


def multiply_eight_bits(
    x: Activations,
    weight: Int8Weight | Float8Weight,
    bias: Tensor | None,
    out: Tensor,
    found: Configuration,
    workspace: Tensor,
    processors: int,
    *,
    widened: bool = False,
) -> None:
    """Launch a product of 8-bit activations and an 8-bit weight.

    Args:
        x: [T, inputs], int8 or float8 with scales.
        weight: [outputs, inputs], of the same dtype.
        bias: [outputs].
        out: [T, outputs]; written.
        found: how.
        workspace: float32 [splits · T · outputs] at least, if there are splits.
        processors: programs that stay, with descriptors.
        widened: multiply float8 as float16, for cards without products of float8.

    Raises:
        ValueError: the workspace is too small.
    """
    (rows, inputs), outputs = x.values.shape, len(weight.values)
    x_values, weight_values = x.values, weight.values
    total = tl.int32 if isinstance(weight, Int8Weight) else tl.float32
    if widened:
        x_values, weight_values = x_values.view(torch.uint8), weight_values.view(torch.uint8)
    tiles = -(-rows // found.rows) * -(-outputs // found.outputs)
    scales_and_out = x.scales, weight.scales, bias, out
    constants = {
        "TILE_ROWS": found.rows,
        "TILE_OUTPUTS": found.outputs,
        "TILE_INPUTS": found.inputs,
        "BAND": found.band,
        "SUM": total,
        "num_warps": found.warps,
        "num_stages": found.stages,
    }
    if rows and found.descriptors:
        launch(
            eight_bit_product_by_descriptors,
            (min(processors, tiles),),
            _descriptor(x_values, found.rows, found.inputs),
            _descriptor(weight_values, found.outputs, found.inputs),
            *scales_and_out,
            *(rows, outputs, inputs),
            STAGES=found.stages,
            **constants,
        )
        return
    split = found.splits > 1
    _check_workspace(workspace, found.splits, out)
    sums = workspace.view(torch.int32) if total == tl.int32 else workspace
    launch(
        eight_bit_product,
        (tiles, found.splits),
        *(x_values, weight_values),
        *scales_and_out,
        sums if split else None,
        *(rows, outputs, inputs),
        found.splits,
        WEIGHT_LEFT=found.weight_left,
        SPLIT=split,
        TAIL=inputs % found.inputs != 0,
        WIDEN=widened,
        **constants,
    )
    if split:
        _add(sums, x.scales, weight.scales, bias, out, found.splits)


def multiply_four_bits(
    x: Tensor,
    weight: Int4Weight,
    bias: Tensor | None,
    out: Tensor,
    found: Configuration,
    workspace: Tensor,
    sums: Tensor,
) -> None:
    """Launch a product of activations and a weight of 4 bits.

    Args:
        x: [T, inputs], of the model's dtype.
        weight: [outputs, inputs], packed.
        bias: [outputs].
        out: [T, outputs]; written.
        found: how.
        workspace: float32 [splits · T · outputs] at least, if there are splits.
        sums: float32 [groups · n], n at least T; for the sums of groups, if the weight has lows.

    Raises:
        ValueError: a workspace is too small.
    """
    rows, inputs = x.shape
    units, padded, half = weight.packed.shape
    groups = len(weight.scales)
    group = 0 if weight.group == inputs else weight.group
    stride = len(sums) // groups
    if weight.lows is not None:
        if stride < rows:
            raise ValueError("sums of groups need a larger workspace: was the weight packed?")
        # A group is read at once; all inputs are not, where they are one group.
        width = triton.next_power_of_2(group) if group else _WIDTH
        together = max(1, _WIDTH // width)
        launch(
            group_sums,
            (rows, -(-groups // together)),
            x,
            sums,
            rows,
            inputs,
            groups,
            stride,
            GROUP=group,
            WIDTH=width,
            GROUPS=together,
        )
    split = found.splits > 1
    _check_workspace(workspace, found.splits, out)
    launch(
        four_bit_product,
        (-(-rows // found.rows) * -(-weight.outputs // found.outputs), found.splits),
        x,
        weight.packed,
        weight.scales,
        weight.lows,
        None if weight.lows is None else sums,
        bias,
        out,
        workspace if split else None,
        rows,
        weight.outputs,
        padded,
        inputs,
        stride,
        found.splits,
        TILE_ROWS=found.rows,
        TILE_OUTPUTS=found.outputs,
        UNIT=2 * half,
        GROUP=group,
        WEIGHT_LEFT=found.weight_left,
        SPLIT=split,
        TAIL=inputs != units * 2 * half,
        ASSEMBLY=x.dtype.itemsize == 2 and not INTERPRETED,
        num_warps=found.warps,
        num_stages=found.stages,
    )
    if split:
        _add(workspace, None, None, bias, out, found.splits)


def unpack_four_bits(weight: Int4Weight, out: Tensor) -> None:
    """Launch the unpacking of a weight to [outputs, inputs] of a float dtype."""
    units, padded, half = weight.packed.shape
    launch(
        unpack,
        (units, -(-weight.outputs // _UNPACKED)),
        weight.packed,
        weight.scales,
        weight.lows,
        out,
        weight.outputs,
        padded,
        weight.inputs,
        TILE_OUTPUTS=_UNPACKED,
        UNIT=2 * half,
        GROUP=0 if weight.group == weight.inputs else weight.group,
        TAIL=weight.inputs != units * 2 * half,
    )


def _descriptor(matrix: Tensor, rows: int, columns: int) -> TensorDescriptor:
    """A dense matrix in tiles."""
    return TensorDescriptor(matrix, list(matrix.shape), [matrix.shape[1], 1], [rows, columns])


def _check_workspace(workspace: Tensor, splits: int, out: Tensor) -> None:
    if splits > 1 and len(workspace) < splits * out.numel():
        raise ValueError(f"{splits} splits need a larger workspace: was the weight packed?")


def _add(
    workspace: Tensor,
    row_scales: Tensor | None,
    channel_scales: Tensor | None,
    bias: Tensor | None,
    out: Tensor,
    splits: int,
) -> None:
    launch(
        add_splits,
        (-(-out.numel() // _CELLS),),
        workspace,
        row_scales,
        channel_scales,
        bias,
        out,
        out.numel(),
        out.shape[1],
        splits,
        CELLS=_CELLS,
    )
