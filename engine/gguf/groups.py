"""ggml's simple block formats as groups of whole numbers, without a loss.

Q4_0, Q4_1 and Q8_0 hold 32 neighbours as w = scale · v + low (ggml-quants.c), which is what
`engine.kernels.grouped` multiplies; nothing has to be rounded again.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.gguf.types import LAYOUT, GGMLType

_KNOWN = frozenset({GGMLType.Q4_0, GGMLType.Q4_1, GGMLType.Q8_0})


class Groups(NamedTuple):
    """w = scales · values + lows.

    Attributes:
        values: uint8 [rows, columns], below ``2 ** bits``.
        scales, lows: float32 [rows, columns / 32].
        bits: 4 or 8.
    """

    values: npt.NDArray[np.uint8]
    scales: npt.NDArray[np.float32]
    lows: npt.NDArray[np.float32]
    bits: int


def has_groups(type: GGMLType) -> bool:
    """Whether `read_groups` can read tensors of a type."""
    return type in _KNOWN


def read_groups(raw: npt.NDArray[np.uint8], type: GGMLType, shape: tuple[int, int]) -> Groups:
    """Take a matrix's stored bytes apart.

    Args:
        raw: uint8 [nbytes], as `GGUFFile.raw` gives it.
        type: one for which `has_groups` holds.
        shape: rows and columns.
    """
    rows, columns = shape
    blocks = raw.reshape(-1, LAYOUT[type].nbytes)
    scales = _floats(blocks[:, 0:2])
    if type == GGMLType.Q8_0:
        values, lows, bits = blocks[:, 2:] ^ np.uint8(0x80), -128 * scales, 8
    else:
        packed = blocks[:, -16:]
        values = np.concatenate((packed & np.uint8(15), packed >> np.uint8(4)), axis=1)
        lows = _floats(blocks[:, 2:4]) if type == GGMLType.Q4_1 else -8 * scales
        bits = 4
    grid = (rows, columns // LAYOUT[type].values)
    return Groups(values.reshape(rows, columns), scales.reshape(grid), lows.reshape(grid), bits)


def _floats(halves: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(halves).view("<f2").astype(np.float32)
