"""Rotary embedding (Su et al. 2021) with the norms of heads and the write to the paged cache."""

import triton
import triton.language as tl

from engine.kernels.triton.passes.rounding import magnitude, narrowed, row_scale


@triton.jit
def _finite(x, dtype: tl.constexpr):
    """float32 with 0 in place of what would not be finite in a dtype."""
    return tl.where(tl.abs(x.to(dtype).to(tl.float32)) < float("inf"), x, 0.0)


@triton.jit
def _store(low, high, live, cache, scales, places, i, HALF: tl.constexpr):
    """Write both halves of heads [n, HALF] to rows of a cache, with their scales if it has some."""
    dtype: tl.constexpr = cache.dtype.element_ty
    at = cache + places[:, None] * (2 * HALF) + i[None, :]
    here = live[:, None] & (i < HALF)[None, :]
    if scales is None:
        tl.store(at, _finite(low, dtype).to(dtype), mask=here)
        tl.store(at + HALF, _finite(high, dtype).to(dtype), mask=here)
    else:
        low, high = _finite(low, tl.float32), _finite(high, tl.float32)
        largest = tl.maximum(tl.max(magnitude(low), 1), tl.max(magnitude(high), 1))
        scale, inverse = row_scale(largest, dtype)
        tl.store(at, narrowed(low, inverse[:, None], dtype), mask=here)
        tl.store(at + HALF, narrowed(high, inverse[:, None], dtype), mask=here)
        tl.store(scales + places, scale, mask=live)


@triton.jit(do_not_specialize_on_alignment=["positions", "cache_slots"])
def rotate_and_store(
    qkv,
    query_norm,
    key_norm,
    eps,
    cosines,
    sines,
    positions,
    cache_slots,
    keys,
    values,
    key_scales,
    value_scales,
    queries,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HALF: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Norm and rotate heads, write keys and values. Grid: (T, (HEADS + 2 · KV_HEADS) / GROUP).

    Args:
        qkv: [T, (HEADS + 2 · KV_HEADS) · 2 · HALF].
        query_norm, key_norm: [2 · HALF]; ``None`` norms nothing.
        eps: added to the norms' mean of squares.
        cosines, sines: float32 [positions, HALF].
        positions, cache_slots: int32 [T].
        keys, values: [slots, KV_HEADS, 2 · HALF]; written where a token's slot is not below 0.
        key_scales, value_scales: float32 [slots, KV_HEADS]; ``None`` where the cache is not of
            8 bits.
        queries: [T, HEADS, 2 · HALF]; written.
        GROUP: heads of a program; divides HEADS and KV_HEADS.
        BLOCK_HEADS, BLOCK: GROUP and HALF, rounded up to powers of two.
    """
    token = tl.program_id(0).to(tl.int64)
    first = tl.program_id(1) * GROUP
    inside = tl.arange(0, BLOCK_HEADS)
    head = first + inside
    i = tl.arange(0, BLOCK)
    live = (inside < GROUP)[:, None] & (i < HALF)[None, :]
    row = token * (HEADS + 2 * KV_HEADS) + head
    source = qkv + row[:, None] * (2 * HALF) + i[None, :]
    low = tl.load(source, mask=live, other=0.0).to(tl.float32)
    high = tl.load(source + HALF, mask=live, other=0.0).to(tl.float32)
    if first < HEADS + KV_HEADS:
        if query_norm is not None:
            squares = tl.sum(low * low, 1) + tl.sum(high * high, 1)
            inverse = tl.rsqrt(squares / (2 * HALF) + eps)[:, None]
            weight = query_norm if first < HEADS else key_norm
            a = tl.load(weight + i, mask=i < HALF, other=0.0).to(tl.float32)
            b = tl.load(weight + HALF + i, mask=i < HALF, other=0.0).to(tl.float32)
            low = low * inverse * a[None, :]
            high = high * inverse * b[None, :]
        angle = tl.load(positions + token).to(tl.int64) * HALF + i
        cosine = tl.load(cosines + angle, mask=i < HALF, other=0.0)[None, :]
        sine = tl.load(sines + angle, mask=i < HALF, other=0.0)[None, :]
        low, high = low * cosine - high * sine, high * cosine + low * sine
    if first < HEADS:
        rotated = queries + (token * HEADS + head)[:, None] * (2 * HALF) + i[None, :]
        tl.store(rotated, low.to(queries.dtype.element_ty), mask=live)
        tl.store(rotated + HALF, high.to(queries.dtype.element_ty), mask=live)
    else:
        slot = tl.load(cache_slots + token).to(tl.int64)
        if slot >= 0:
            if first < HEADS + KV_HEADS:
                places = slot * KV_HEADS + head - HEADS
                _store(low, high, inside < GROUP, keys, key_scales, places, i, HALF)
            else:
                places = slot * KV_HEADS + head - HEADS - KV_HEADS
                _store(low, high, inside < GROUP, values, value_scales, places, i, HALF)
