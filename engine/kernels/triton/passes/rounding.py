"""Rounding rows to int8 and fp8, inside the passes and on its own; the feed-forward's gate."""

import triton
import triton.language as tl

from engine.kernels.hadamard import STRIDE

_STRIDE = tl.constexpr(STRIDE)


@triton.jit
def row_scale(largest, out_dtype: tl.constexpr):
    """The scale of rows whose largest magnitudes are given, and its inverse.

    Where a scale would be below float32's normal numbers, both are 0; where it is not finite, the
    inverse is 0.
    """
    top: tl.constexpr = 127.0 if out_dtype == tl.int8 else 448.0
    scale = tl.div_rn(largest, top)
    scale = tl.where(scale < 1.1754943508222875e-38, 0.0, scale)
    usable = (scale > 0.0) & (scale < float("inf"))
    inverse = tl.where(usable, tl.div_rn(1.0, tl.where(usable, scale, 1.0)), 0.0)
    return scale, inverse


@triton.jit
def magnitude(x):
    """|x|, and infinity for NaN, so that a maximum shows what is not finite."""
    return tl.where(x == x, tl.abs(x), float("inf"))


@triton.jit
def narrowed(x, inverse, out_dtype: tl.constexpr):
    """x · inverse in 8 bits; int8 to nearest, ties to even. All 0 where ``inverse`` is 0."""
    scaled = tl.where(inverse > 0.0, x * inverse, 0.0)
    if out_dtype == tl.int8:
        # 1.5 · 2²³: the sum has no bits left for a fraction, so adding rounds.
        scaled = (scaled + 12582912.0) - 12582912.0
    return scaled.to(out_dtype)


@triton.jit
def _pairwise(y, APART: tl.constexpr, BLOCK: tl.constexpr):
    """Sums and differences of the numbers of [BLOCK] that are APART from each other."""
    pairs = tl.reshape(y, [BLOCK // (2 * APART), 2, APART])
    second = tl.arange(0, 2)[None, :, None] == 1
    # Sums over the pairs leave each number in its thread; splitting and joining move all of them.
    both = tl.sum(pairs, 1, keep_dims=True)
    apart = tl.sum(tl.where(second, -pairs, pairs), 1, keep_dims=True)
    return tl.reshape(tl.where(second, apart, both), [BLOCK])


@triton.jit
def _read(
    x,
    row,
    i,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    GATED: tl.constexpr,
    LEVELS: tl.constexpr,
):
    """float32 of a row's numbers ``i``; of silu(first half) · second half where it is gated.

    They are BLOCK numbers that begin at a multiple of it, and 0 from WIDTH on. With LEVELS, runs of
    ``16 << LEVELS`` numbers go through `engine.kernels.hadamard.hadamard`, without its division.
    """
    live = i < WIDTH
    if GATED:
        gate = tl.load(x + row * 2 * WIDTH + i, mask=live, other=0.0).to(tl.float32)
        up = tl.load(x + row * 2 * WIDTH + WIDTH + i, mask=live, other=0.0).to(tl.float32)
        y = gate / (1.0 + tl.exp(-gate)) * up
    else:
        y = tl.load(x + row * WIDTH + i, mask=live, other=0.0).to(tl.float32)
    for level in tl.static_range(LEVELS):
        y = _pairwise(y, _STRIDE << level, BLOCK)
    return y


@triton.jit
def convert_rows(
    x,
    out,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    GATED: tl.constexpr,
    LEVELS: tl.constexpr,
):
    """Rows in another dtype, gated or not. Grid: (T, ceil(WIDTH / BLOCK)).

    Args:
        x: [T, WIDTH], or [T, 2 · WIDTH] where it is gated.
        out: [T, WIDTH]; written.
        LEVELS: see `_read`.
    """
    row = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    y = _read(x, row, i, WIDTH, BLOCK, GATED, LEVELS)
    tl.store(out + row * WIDTH + i, y.to(out.dtype.element_ty), mask=i < WIDTH)


@triton.jit
def round_rows(
    x,
    out,
    scales,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    GATED: tl.constexpr,
    LEVELS: tl.constexpr,
):
    """Rows in 8 bits, each with its own scale, gated or not. Grid: (T,).

    A row that is longer than BLOCK is read twice.

    Args:
        x: [T, WIDTH], or [T, 2 · WIDTH] where it is gated.
        out: int8 or float8_e4m3fn [T, WIDTH]; written.
        scales: float32 [T]; written.
        LEVELS: see `_read`.
    """
    row = tl.program_id(0).to(tl.int64)
    dtype: tl.constexpr = out.dtype.element_ty
    i = tl.arange(0, BLOCK)
    if WIDTH <= BLOCK:
        y = _read(x, row, i, WIDTH, BLOCK, GATED, LEVELS)
        scale, inverse = row_scale(tl.max(magnitude(y), 0), dtype)
        tl.store(out + row * WIDTH + i, narrowed(y, inverse, dtype), mask=i < WIDTH)
        tl.store(scales + row, scale)
    else:
        largest = tl.zeros([BLOCK], tl.float32)
        for start in range(0, WIDTH, BLOCK):
            y = _read(x, row, start + i, WIDTH, BLOCK, GATED, LEVELS)
            largest = tl.maximum(largest, magnitude(y))
        scale, inverse = row_scale(tl.max(largest, 0), dtype)
        tl.store(scales + row, scale)
        for start in range(0, WIDTH, BLOCK):
            j = start + i
            y = _read(x, row, j, WIDTH, BLOCK, GATED, LEVELS)
            tl.store(out + row * WIDTH + j, narrowed(y, inverse, dtype), mask=j < WIDTH)
