"""The layout of weights of 4 bits: tiles of a weight are runs of bytes, and nothing is shuffled."""

import torch
from torch import Tensor

from engine.kernels.fused.weights import Int4Weight
from engine.kernels.grouped import GroupedWeight

PADDED = 128  # outputs are rounded up to this, the largest tile
_ROWS = 8192  # of a weight that are packed at a time


def unit_of(inputs: int, group: int) -> int | None:
    """Inputs of a unit: 64 or 128; ``None`` where a group does not fit into any.

    A unit holds two groups, or a group is one or several units, or all inputs are one group.
    """
    if group == inputs:
        return 64 if inputs % 128 else 128
    if group == 32:
        return 64
    if group == 64:
        return 64 if inputs % 128 else 128
    if group % 64 == 0:
        return 64 if group % 128 else 128
    return None


def pack_int4(weight: GroupedWeight, dtype: torch.dtype) -> Int4Weight:
    """Pack a weight of 4 bits.

    Inputs are cut into units, which are outermost: ``packed`` is [units, outputs, unit / 2]. Byte j
    of a unit holds input j in its low nibble and input j + unit / 2 in its high one. Outputs are
    padded to a multiple of `PADDED` and inputs to one of the unit, with zeros; where that makes
    another group, its scales and lows are zeros too.

    Scales and lows are kept in float16 where that is as precise for them as its 11 bits are, else
    in float32: bfloat16 has fewer bits than the scales of a GGUF file.

    Args:
        weight: of 4 bits.
        dtype: the model's; with float32, scales stay in float32.

    Raises:
        ValueError: no unit fits its groups.
    """
    outputs, inputs = weight.values.shape
    unit = unit_of(inputs, weight.group)
    if unit is None or weight.bits != 4:
        raise ValueError(f"{weight.bits} bits in groups of {weight.group} have no packed layout.")
    padded, half = -outputs % PADDED + outputs, unit // 2
    units = -(-inputs // unit)
    packed = weight.values.new_zeros(units, padded, half)
    for start in range(0, outputs, _ROWS):  # whole copies of a head would be large
        rows = weight.values[start : start + _ROWS]
        wide = rows.new_zeros(len(rows), units * unit)
        wide[:, :inputs] = rows
        low, high = wide.view(-1, units, 2, half).unbind(2)
        packed[:, start : start + len(rows)] = (low | high << 4).transpose(0, 1)
    symmetric = torch.equal(weight.lows, -8 * weight.scales)
    kept = _narrow(weight, dtype, symmetric)
    groups = max(1, units * unit // weight.group)
    return Int4Weight(
        packed,
        _across(weight.scales, groups, padded, kept),
        None if symmetric else _across(weight.lows, groups, padded, kept),
        outputs,
        inputs,
        weight.group,
    )


def _narrow(weight: GroupedWeight, dtype: torch.dtype, symmetric: bool) -> torch.dtype:
    """The dtype that scales and lows are kept in."""
    if dtype == torch.float32:
        return torch.float32
    for numbers in (weight.scales,) if symmetric else (weight.scales, weight.lows):
        if not ((numbers.half().float() - numbers).abs() <= numbers.abs() * 2**-11).all():
            return torch.float32
    return torch.float16


def _across(numbers: Tensor, groups: int, padded: int, dtype: torch.dtype) -> Tensor:
    """[outputs, groups] as [groups, outputs], with zeros in what is added."""
    out = numbers.new_zeros(groups, padded, dtype=dtype)
    out[: numbers.shape[1], : len(numbers)] = numbers.T
    return out
