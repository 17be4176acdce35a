"""Prefills: tiles of a prompt's new tokens against all keys before them."""

import triton
import triton.language as tl

from engine.kernels.triton.attention.paged import LOG2E, attend, round_queries
from engine.kernels.triton.attention.pieces import fold_pieces


@triton.jit(do_not_specialize=["window", "table_stride"])
def prefill_kernel(
    queries, keys, values, key_scales, value_scales, out, piece_values, piece_lse, query_start,
    contexts, slots, block_tables, shared, pieces, tiles, scale, window, table_stride,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, STRIDE_BLOCK: tl.constexpr, STRIDE_TOKEN: tl.constexpr,
    STRIDE_HEAD: tl.constexpr, ROWS: tl.constexpr, BLOCK_N: tl.constexpr, STAGES: tl.constexpr,
    SHARED: tl.constexpr, WINDOW: tl.constexpr, FORMAT: tl.constexpr, PRODUCT: tl.constexpr,
    PTX: tl.constexpr,
):  # fmt: skip
    """Causal attention of the tokens of prefills. Grid: (tiles · KV_HEADS,).

    A row is a token and a query head of the KV head. Keys that all rows see come first, without a
    mask.

    Args:
        tiles: `TaskArrays.prefill_tiles`.
        SHARED: skip the keys that segments read, and fold their pieces in.
        The others are as in `decode_kernel`.
    """
    GROUP: tl.constexpr = HEADS // KV_HEADS
    TOKENS: tl.constexpr = ROWS // GROUP
    DTYPE: tl.constexpr = queries.dtype.element_ty
    kv_head, tile = tl.program_id(0) % KV_HEADS, tl.program_id(0) // KV_HEADS
    sequence = tl.load(tiles + 2 * tile)
    tile_token = tl.load(tiles + 2 * tile + 1)
    begin = tl.load(query_start + sequence)
    new = tl.load(query_start + sequence + 1) - begin
    context = tl.load(contexts + sequence)
    row = tl.arange(0, ROWS)
    d = tl.arange(0, BLOCK_D)
    token = tile_token + row // GROUP
    head = kv_head * GROUP + row % GROUP
    live = (row < TOKENS * GROUP) & (token < new)
    # Within a tile 32 bits suffice; a long prompt's first number may be beyond them.
    places = ((row // GROUP * HEADS + head) * HEAD_DIM)[:, None] + d[None, :]
    skipped = (begin + tile_token).to(tl.int64) * HEADS * HEAD_DIM
    mask = live[:, None] & (d < HEAD_DIM)[None, :]
    q = tl.load(queries + skipped + places, mask=mask, other=0.0)
    query_scales = tl.zeros([ROWS], tl.float32)
    if PRODUCT > 0:
        q, query_scales = round_queries(q, FORMAT)
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, BLOCK_D], tl.float32)
    position = context - new + token
    first_position = context - new + tile_token
    last_position = tl.minimum(first_position + TOKENS, context) - 1
    first = 0
    if SHARED:
        first = tl.load(shared + sequence)
        start, count = tl.load(pieces + 2 * sequence), tl.load(pieces + 2 * sequence + 1)
        cells = (start + token * count).to(tl.int64) * HEADS + head
        acc, total, top = fold_pieces(
            acc, total, top, piece_values, piece_lse, cells, count, live, HEADS, HEAD_DIM, BLOCK_D
        )  # fmt: skip
    if WINDOW:
        first = tl.maximum(first_position + 1 - window, 0) // BLOCK_N * BLOCK_N
    seen = first + (first_position + 1 - first) // BLOCK_N * BLOCK_N
    table = block_tables + tl.load(slots + sequence).to(tl.int64) * table_stride
    if WINDOW:
        hidden = tl.cdiv(tl.maximum(last_position + 1 - window, 0), BLOCK_N) * BLOCK_N
        hidden = tl.minimum(tl.maximum(hidden, first), seen)
        acc, total, top = attend(
            acc, total, top, q, query_scales, keys + kv_head * STRIDE_HEAD,
            values + kv_head * STRIDE_HEAD, key_scales, value_scales, table, first, hidden,
            position, window, kv_head, scale * LOG2E, KV_HEADS, HEAD_DIM, BLOCK_D, BLOCK_SIZE,
            STRIDE_BLOCK, STRIDE_TOKEN, BLOCK_N, STAGES, "window", FORMAT, PRODUCT, DTYPE, PTX,
        )  # fmt: skip
        first = hidden
    acc, total, top = attend(
        acc, total, top, q, query_scales, keys + kv_head * STRIDE_HEAD,
        values + kv_head * STRIDE_HEAD, key_scales, value_scales, table, first, seen,
        position, window, kv_head, scale * LOG2E, KV_HEADS, HEAD_DIM, BLOCK_D, BLOCK_SIZE,
        STRIDE_BLOCK, STRIDE_TOKEN, BLOCK_N, STAGES, "none", FORMAT, PRODUCT, DTYPE, PTX,
    )  # fmt: skip
    acc, total, top = attend(
        acc, total, top, q, query_scales, keys + kv_head * STRIDE_HEAD,
        values + kv_head * STRIDE_HEAD, key_scales, value_scales, table, seen, last_position + 1,
        position, window, kv_head, scale * LOG2E, KV_HEADS, HEAD_DIM, BLOCK_D, BLOCK_SIZE,
        STRIDE_BLOCK, STRIDE_TOKEN, BLOCK_N, STAGES, "window" if WINDOW else "causal", FORMAT,
        PRODUCT, DTYPE, PTX,
    )  # fmt: skip
    safe = tl.where(total > 0, total, 1.0)
    tl.store(out + skipped + places, (acc / safe[:, None]).to(DTYPE), mask=mask)
