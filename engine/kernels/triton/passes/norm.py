"""Embedding, and the sum of the residual stream with its norm (Zhang and Sennrich 2019)."""

import triton
import triton.language as tl

from engine.kernels.triton.passes.rounding import magnitude, narrowed, row_scale


@triton.jit(do_not_specialize_on_alignment=["token_ids", "last_tokens"])
def embed(token_ids, last_tokens, table, residual, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """Rows of a table, in float32. Grid: (T, ceil(WIDTH / BLOCK)).

    Args:
        token_ids: int32 [T]; below 0, the last token of slot ``-1 - id``.
        last_tokens: int32 [slots].
        table: [vocab, WIDTH].
        residual: float32 [T, WIDTH]; written.
    """
    row = tl.program_id(0).to(tl.int64)
    token = tl.load(token_ids + row)
    token = tl.load(last_tokens - 1 - token, mask=token < 0, other=token).to(tl.int64)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(table + token * WIDTH + i, mask=i < WIDTH, other=0.0)
    tl.store(residual + row * WIDTH + i, x.to(tl.float32), mask=i < WIDTH)


@triton.jit
def add_norm(update, residual, weight, eps, out, scales, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """residual += update; out = its root-mean-square norm · weight, rounded. Grid: (T,).

    Args:
        update: [T, WIDTH]; ``None`` adds nothing.
        residual: float32 [T, WIDTH]; written.
        weight: [WIDTH].
        eps: added to the mean of squares.
        out: [T, WIDTH]; written.
        scales: float32 [T], written; ``None`` where ``out`` is not of 8 bits.
    """
    row = tl.program_id(0).to(tl.int64)
    dtype: tl.constexpr = out.dtype.element_ty
    i = tl.arange(0, BLOCK)
    live = i < WIDTH
    x = tl.load(residual + row * WIDTH + i, mask=live, other=0.0)
    if update is not None:
        x += tl.load(update + row * WIDTH + i, mask=live, other=0.0).to(tl.float32)
        tl.store(residual + row * WIDTH + i, x, mask=live)
    w = tl.load(weight + i, mask=live, other=0.0).to(tl.float32)
    y = x * tl.rsqrt(tl.sum(x * x, 0) / WIDTH + eps) * w
    if scales is None:
        tl.store(out + row * WIDTH + i, y.to(dtype), mask=live)
    else:
        scale, inverse = row_scale(tl.max(magnitude(y), 0), dtype)
        tl.store(out + row * WIDTH + i, narrowed(y, inverse, dtype), mask=live)
        tl.store(scales + row, scale)
