"""ggml's block formats → float32 (the layouts and formulas of ggml-quants.c).

Bytes are decoded a few thousand blocks at a time, straight into the result, so that what is
computed in between stays in the processor's cache.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import CheckpointError
from engine.gguf.types import LAYOUT, GGMLType, stored_bytes

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

# Values decoded at a time: 256 KiB of float32.
_WINDOW_VALUES = 65_536


def dequantize(raw: Bytes, type: GGMLType, shape: tuple[int, ...]) -> Floats:
    """Decode a tensor's stored bytes.

    Args:
        raw: uint8 ``[nbytes]``, as `GGUFFile.raw` gives it.
        type: how it is stored; one of `DECODABLE`.
        shape: row-major shape of the result.

    Returns:
        float32, C-contiguous, of that shape; a fresh array.

    Raises:
        CheckpointError: the type cannot be decoded, or ``raw`` has another size than it should.
    """
    decode = _DECODERS.get(type)
    if decode is None:
        known = ", ".join(sorted(known.name for known in DECODABLE))
        raise CheckpointError(f"Tensors of type {type.name} cannot be decoded; known are: {known}.")
    expected = stored_bytes(type, shape)
    if raw.size != expected:
        raise CheckpointError(
            f"A {type.name} tensor of shape {shape} takes {expected} bytes, not {raw.size}."
        )
    layout = LAYOUT[type]
    out = np.empty(shape, np.float32)
    values = out.reshape(-1, layout.values)
    blocks = raw.reshape(-1, layout.nbytes)
    window = _WINDOW_VALUES // layout.values
    for start in range(0, len(blocks), window):
        # Blocks are packed at odd offsets; a copy aligns their columns for views.
        decode(blocks[start : start + window], values[start : start + window])
    return out


def _as(blocks: Bytes, start: int, stop: int, dtype: str) -> npt.NDArray[Any]:
    """Bytes [start, stop) of every block, read as ``dtype``."""
    return np.ascontiguousarray(blocks[:, start:stop]).view(dtype)


def _floats(dtype: str) -> Callable[[Bytes, Floats], None]:
    def decode(blocks: Bytes, out: Floats) -> None:
        out[:] = np.ascontiguousarray(blocks).view(dtype)

    return decode


def _bf16(blocks: Bytes, out: Floats) -> None:
    # bfloat16 is the upper half of a float32.
    np.left_shift(_as(blocks, 0, 2, "<u2"), 16, out=out.view(np.uint32), dtype=np.uint32)


def _q8_0(blocks: Bytes, out: Floats) -> None:
    np.multiply(_as(blocks, 2, 34, "i1"), _as(blocks, 0, 2, "<f2").astype(np.float32), out=out)


def _nibbles(packed: Bytes, out: Floats) -> None:
    """Low nibbles into the first half of each row, high ones into the second."""
    half = packed.shape[-1]
    out[..., :half] = packed & 15
    out[..., half:] = packed >> 4


def _fifth_bits(blocks: Bytes, start: int) -> npt.NDArray[np.uint8]:
    """The 32 high bits of a block, as 0 or 16."""
    bits = np.unpackbits(blocks[:, start : start + 4], axis=1, bitorder="little")
    return np.left_shift(bits, 4)


def _q4_0(blocks: Bytes, out: Floats) -> None:
    _nibbles(blocks[:, 2:], out)
    out -= 8
    out *= _as(blocks, 0, 2, "<f2").astype(np.float32)


def _q4_1(blocks: Bytes, out: Floats) -> None:
    _nibbles(blocks[:, 4:], out)
    out *= _as(blocks, 0, 2, "<f2").astype(np.float32)
    out += _as(blocks, 2, 4, "<f2").astype(np.float32)


def _q5_0(blocks: Bytes, out: Floats) -> None:
    _nibbles(blocks[:, 6:], out)
    out += _fifth_bits(blocks, 2)
    out -= 16
    out *= _as(blocks, 0, 2, "<f2").astype(np.float32)


def _q5_1(blocks: Bytes, out: Floats) -> None:
    _nibbles(blocks[:, 8:], out)
    out += _fifth_bits(blocks, 4)
    out *= _as(blocks, 0, 2, "<f2").astype(np.float32)
    out += _as(blocks, 2, 4, "<f2").astype(np.float32)


def _k_scales(blocks: Bytes) -> tuple[Floats, Floats]:
    """Scale and minimum of the eight groups of a Q4_K or Q5_K block: float32 ``[blocks, 8, 1]``.

    Twelve bytes hold eight 6-bit scales and eight 6-bit minima: the first four of each in the low
    bits of bytes 0–3 and 4–7; of the last four the low nibbles in bytes 8–11 and the upper two
    bits on top of bytes 0–3 and 4–7.
    """
    low, high, both = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scales = np.concatenate([low & 63, (both & 15) | (low >> 6 << 4)], axis=1)
    minima = np.concatenate([high & 63, (both >> 4) | (high >> 6 << 4)], axis=1)
    unit = _as(blocks, 0, 4, "<f2").astype(np.float32)
    return (unit[:, :1] * scales)[..., None], (unit[:, 1:] * minima)[..., None]


def _q4_k(blocks: Bytes, out: Floats) -> None:
    scales, minima = _k_scales(blocks)
    groups = out.reshape(-1, 8, 32)
    _nibbles(blocks[:, 16:].reshape(-1, 4, 32), out.reshape(-1, 4, 64))
    groups *= scales
    groups -= minima


def _q5_k(blocks: Bytes, out: Floats) -> None:
    scales, minima = _k_scales(blocks)
    groups = out.reshape(-1, 8, 32)
    _nibbles(blocks[:, 48:].reshape(-1, 4, 32), out.reshape(-1, 4, 64))
    # Bit g of byte i is the fifth bit of value i of group g.
    shifts = np.arange(8, dtype=np.uint8)[:, None]
    groups += ((blocks[:, None, 16:48] >> shifts) & 1) << 4
    groups *= scales
    groups -= minima


def _q6_k(blocks: Bytes, out: Floats) -> None:
    # Two halves of 128 values: 64 bytes of nibbles and 32 bytes of bit pairs each.
    _nibbles(blocks[:, :128].reshape(-1, 2, 64), out.reshape(-1, 2, 128))
    shifts = np.array([[0], [2], [4], [6]], np.uint8)
    pairs = blocks[:, 128:192].reshape(-1, 2, 1, 32) >> shifts
    quarters = out.reshape(-1, 2, 4, 32)
    quarters += (pairs & 3) << 4
    out -= 32
    unit = _as(blocks, 208, 210, "<f2").astype(np.float32)
    groups = out.reshape(-1, 16, 16)
    groups *= (unit * _as(blocks, 192, 208, "i1"))[..., None]


_DECODERS: Mapping[GGMLType, Callable[[Bytes, Floats], None]] = MappingProxyType(
    {
        GGMLType.F32: _floats("<f4"),
        GGMLType.F16: _floats("<f2"),
        GGMLType.BF16: _bf16,
        GGMLType.F64: _floats("<f8"),
        GGMLType.Q4_0: _q4_0,
        GGMLType.Q4_1: _q4_1,
        GGMLType.Q5_0: _q5_0,
        GGMLType.Q5_1: _q5_1,
        GGMLType.Q8_0: _q8_0,
        GGMLType.Q4_K: _q4_k,
        GGMLType.Q5_K: _q5_k,
        GGMLType.Q6_K: _q6_k,
    }
)
DECODABLE: frozenset[GGMLType] = frozenset(_DECODERS)
