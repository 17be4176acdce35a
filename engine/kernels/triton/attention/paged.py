"""Rows of queries against a range of the keys of one sequence, over the paged cache."""

import triton
import triton.language as tl

from engine.kernels.triton.attention.widen import widen

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def blocks_of(table, first, end, BLOCK_SIZE: tl.constexpr, BLOCK_N: tl.constexpr):
    """Cache blocks of the tokens first, ...: one number if a tile lies in one, else [BLOCK_N]."""
    if BLOCK_N <= BLOCK_SIZE:
        blocks = tl.load(table + first // BLOCK_SIZE, mask=first < end, other=0).to(tl.int64)
    else:
        n = first + tl.arange(0, BLOCK_N)
        blocks = tl.load(table + n // BLOCK_SIZE, mask=n < end, other=0).to(tl.int64)
    return blocks


@triton.jit
def load_tile(
    cache, blocks, first, end, STRIDE_BLOCK: tl.constexpr, STRIDE_TOKEN: tl.constexpr,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_SIZE: tl.constexpr,
    BLOCK_N: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """[BLOCK_N, BLOCK_D] of the tokens first, ...; 0 behind the head; MASKED: 0 from ``end`` on."""
    n = first + tl.arange(0, BLOCK_N)
    d = tl.arange(0, BLOCK_D)
    places = blocks * STRIDE_BLOCK + (n % BLOCK_SIZE) * STRIDE_TOKEN
    pointers = cache + places[:, None] + d[None, :]
    if MASKED and HEAD_DIM < BLOCK_D:
        x = tl.load(pointers, mask=(n < end)[:, None] & (d < HEAD_DIM)[None, :], other=0)
    elif MASKED:
        x = tl.load(pointers, mask=(n < end)[:, None], other=0)
    elif HEAD_DIM < BLOCK_D:
        x = tl.load(pointers, mask=(d < HEAD_DIM)[None, :], other=0)
    else:
        x = tl.load(pointers)
    return x


@triton.jit
def load_scales(
    scales, blocks, first, end, head, KV_HEADS: tl.constexpr, BLOCK_SIZE: tl.constexpr,
    BLOCK_N: tl.constexpr,
):  # fmt: skip
    """float32 [BLOCK_N]; the scales of the tokens first, ..., 0 from ``end`` on."""
    n = first + tl.arange(0, BLOCK_N)
    places = (blocks * BLOCK_SIZE + n % BLOCK_SIZE) * KV_HEADS + head
    return tl.load(scales + places, mask=n < end, other=0.0)


@triton.jit
def round_queries(queries, FORMAT: tl.constexpr):
    """Each row in 8 bits, and its scale in float32."""
    wide = queries.to(tl.float32)
    top = tl.max(tl.abs(wide), 1)
    if FORMAT == "int8":
        scales = top / 127.0
        scaled = wide / tl.where(top > 0, scales, 1.0)[:, None]
        rounded = tl.floor(scaled + 0.5).to(tl.int8)
    else:
        scales = top / 448.0
        rounded = (wide / tl.where(top > 0, scales, 1.0)[:, None]).to(tl.float8e4nv)
    return rounded, scales


@triton.jit
def weigh_8_bits(weights, values, FORMAT: tl.constexpr):
    """float32 weights · values, the weights rounded to 8 bits, each row by its largest."""
    top = tl.maximum(tl.max(weights, 1), 1e-30)
    if FORMAT == "int8":
        rounded = tl.floor(weights * (127.0 / top)[:, None] + 0.5).to(tl.int8)
        sums = tl.dot(rounded, values).to(tl.float32) * (top / 127.0)[:, None]
    else:
        rounded = (weights * (448.0 / top)[:, None]).to(tl.float8e4nv)
        sums = tl.dot(rounded, values.to(tl.float8e4nv, bitcast=True))
        sums = sums * (top / 448.0)[:, None]
    return sums


@triton.jit
def attend(
    acc, total, top, queries, query_scales, keys, values, key_scales, value_scales, table,
    first, end, positions, window, head, factor,
    KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, STRIDE_BLOCK: tl.constexpr, STRIDE_TOKEN: tl.constexpr,
    BLOCK_N: tl.constexpr, STAGES: tl.constexpr, MASK: tl.constexpr, FORMAT: tl.constexpr,
    PRODUCT: tl.constexpr, DTYPE: tl.constexpr, PTX: tl.constexpr,
):  # fmt: skip
    """Go on with an online softmax over the keys first, ..., end - 1.

    Block numbers are read one tile ahead, so that the loads of keys are no second link of a chain
    to Triton's pipeliner. Products of float32 are three of tf32, which err by about 1e-6.

    Args:
        acc, total, top: float32 [rows, BLOCK_D], [rows], [rows]; weighted sum of values, sum of
            weights, largest score in base 2.
        queries: [rows, BLOCK_D]; of the model's dtype, or 8 bits where PRODUCT is not 0.
        query_scales: float32 [rows]; read where PRODUCT is not 0.
        keys, values: at the KV head; 8 bits as `widen` takes them.
        key_scales, value_scales: float32 [blocks, BLOCK_SIZE, KV_HEADS]; read with 8 bits.
        table: the sequence's block table.
        first: a multiple of BLOCK_N or of BLOCK_SIZE.
        positions: [rows]; read where MASK is "causal" or "window".
        window: keys that a row sees; read where MASK is "window".
        head: the KV head.
        factor: of the scores, log2(e) included; above 0.
        MASK: "none": all rows see all keys, and (end - first) is a multiple of BLOCK_N; "end": all
            rows see all keys; "causal", "window".
        FORMAT: "none", "int8" or "fp8"; what the cache holds.
        PRODUCT: 0: 8 bits are widened; 1: scores are computed in 8 bits; 2: sums of values too.
        DTYPE: the model's dtype.
        PTX: see `widen`.
    """
    blocks = blocks_of(table, first, end, BLOCK_SIZE, BLOCK_N)
    for start in tl.range(first, end, BLOCK_N, num_stages=STAGES):
        n = start + tl.arange(0, BLOCK_N)
        k = load_tile(
            keys, blocks, start, end, STRIDE_BLOCK, STRIDE_TOKEN, HEAD_DIM, BLOCK_D, BLOCK_SIZE,
            BLOCK_N, False,
        )  # fmt: skip
        v = load_tile(
            values, blocks, start, end, STRIDE_BLOCK, STRIDE_TOKEN, HEAD_DIM, BLOCK_D, BLOCK_SIZE,
            BLOCK_N, MASK != "none",
        )  # fmt: skip
        if PRODUCT == 0:
            k = widen(k, DTYPE, FORMAT, PTX)
        elif FORMAT == "fp8":
            k = k.to(tl.float8e4nv, bitcast=True)
        scores = tl.dot(queries, tl.trans(k), input_precision="tf32x3")
        if FORMAT == "none":
            scaled = factor
        else:
            by_key = load_scales(
                key_scales, blocks, start, end, head, KV_HEADS, BLOCK_SIZE, BLOCK_N
            )
            scores = scores.to(tl.float32) * (by_key * factor)[None, :]
            if PRODUCT > 0:
                scores = scores * query_scales[:, None]
            scaled = 1.0
        if MASK == "end":
            scores = tl.where((n < end)[None, :], scores, float("-inf"))
        elif MASK == "causal":
            scores = tl.where(n[None, :] <= positions[:, None], scores, float("-inf"))
        elif MASK == "window":
            distance = positions[:, None] - n[None, :]
            scores = tl.where((distance >= 0) & (distance < window), scores, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, 1) * scaled)
        base = new_top
        if MASK == "window":  # a row may see none of the tile's keys, nor of those before
            base = tl.where(new_top > float("-inf"), new_top, 0.0)
        weights = tl.exp2(scores * scaled - base[:, None])
        decay = tl.exp2(top - base)
        total = total * decay + tl.sum(weights, 1)
        acc = acc * decay[:, None]
        if FORMAT == "none":
            acc = tl.dot(weights.to(DTYPE), v, acc, input_precision="tf32x3")
        else:
            weights *= load_scales(
                value_scales, blocks, start, end, head, KV_HEADS, BLOCK_SIZE, BLOCK_N
            )[None, :]
            if PRODUCT == 2:
                acc += weigh_8_bits(weights, v, FORMAT)
            else:
                v = widen(v, DTYPE, FORMAT, PTX)
                acc = tl.dot(weights.to(DTYPE), v, acc, input_precision="tf32x3")
        top = new_top
        blocks = blocks_of(table, start + BLOCK_N, end, BLOCK_SIZE, BLOCK_N)
    return acc, total, top
