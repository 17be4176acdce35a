"""The tensor types of ggml and how many bytes their blocks take (ggml.h, ggml-common.h)."""

from collections.abc import Mapping
from enum import IntEnum
from math import prod
from types import MappingProxyType
from typing import NamedTuple


class GGMLType(IntEnum):
    """A tensor's storage type, with the numbers that GGUF files use."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q2_K = 10
    Q3_K = 11
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    IQ2_XXS = 16
    IQ2_XS = 17
    IQ3_XXS = 18
    IQ1_S = 19
    IQ4_NL = 20
    IQ3_S = 21
    IQ2_S = 22
    IQ4_XS = 23
    I8 = 24
    I16 = 25
    I32 = 26
    I64 = 27
    F64 = 28
    IQ1_M = 29
    BF16 = 30
    TQ1_0 = 34
    TQ2_0 = 35
    MXFP4 = 39


class BlockLayout(NamedTuple):
    """A type's unit of storage: ``values`` numbers packed into ``nbytes`` bytes."""

    values: int
    nbytes: int


LAYOUT: Mapping[GGMLType, BlockLayout] = MappingProxyType(
    {
        GGMLType.F32: BlockLayout(1, 4),
        GGMLType.F16: BlockLayout(1, 2),
        GGMLType.Q4_0: BlockLayout(32, 18),
        GGMLType.Q4_1: BlockLayout(32, 20),
        GGMLType.Q5_0: BlockLayout(32, 22),
        GGMLType.Q5_1: BlockLayout(32, 24),
        GGMLType.Q8_0: BlockLayout(32, 34),
        GGMLType.Q2_K: BlockLayout(256, 84),
        GGMLType.Q3_K: BlockLayout(256, 110),
        GGMLType.Q4_K: BlockLayout(256, 144),
        GGMLType.Q5_K: BlockLayout(256, 176),
        GGMLType.Q6_K: BlockLayout(256, 210),
        GGMLType.IQ2_XXS: BlockLayout(256, 66),
        GGMLType.IQ2_XS: BlockLayout(256, 74),
        GGMLType.IQ3_XXS: BlockLayout(256, 98),
        GGMLType.IQ1_S: BlockLayout(256, 50),
        GGMLType.IQ4_NL: BlockLayout(32, 18),
        GGMLType.IQ3_S: BlockLayout(256, 110),
        GGMLType.IQ2_S: BlockLayout(256, 82),
        GGMLType.IQ4_XS: BlockLayout(256, 136),
        GGMLType.I8: BlockLayout(1, 1),
        GGMLType.I16: BlockLayout(1, 2),
        GGMLType.I32: BlockLayout(1, 4),
        GGMLType.I64: BlockLayout(1, 8),
        GGMLType.F64: BlockLayout(1, 8),
        GGMLType.IQ1_M: BlockLayout(256, 56),
        GGMLType.BF16: BlockLayout(1, 2),
        GGMLType.TQ1_0: BlockLayout(256, 54),
        GGMLType.TQ2_0: BlockLayout(256, 66),
        GGMLType.MXFP4: BlockLayout(32, 17),
    }
)


def stored_bytes(type: GGMLType, shape: tuple[int, ...]) -> int | None:
    """Bytes that a tensor takes, or ``None`` where its rows are no whole number of blocks."""
    layout = LAYOUT[type]
    if shape and shape[-1] % layout.values:
        return None
    return prod(shape) // layout.values * layout.nbytes
