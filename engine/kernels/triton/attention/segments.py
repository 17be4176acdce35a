"""Segments: the rows of all sequences that share a run of blocks, in one product with its keys."""

import triton
import triton.language as tl

from engine.kernels.triton.attention.paged import LOG2E, attend, round_queries
from engine.kernels.triton.attention.pieces import store_piece


@triton.jit(do_not_specialize=["table_stride"])
def segment_kernel(
    queries, keys, values, key_scales, value_scales, piece_values, piece_lse, block_tables, tiles,
    members, scale, table_stride, HEADS: tl.constexpr, KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_SIZE: tl.constexpr,
    STRIDE_BLOCK: tl.constexpr, STRIDE_TOKEN: tl.constexpr, STRIDE_HEAD: tl.constexpr,
    FIELDS: tl.constexpr, ROWS: tl.constexpr, BLOCK_N: tl.constexpr, STAGES: tl.constexpr,
    FORMAT: tl.constexpr, PRODUCT: tl.constexpr, PTX: tl.constexpr,
):  # fmt: skip
    """Attention of members over segments, written as pieces. Grid: (tiles · KV_HEADS,).

    A row is a member token and a query head of the KV head; all rows see all keys.

    Args:
        piece_values, piece_lse: see `fold_pieces`; written.
        tiles: `TaskArrays.segment_tiles`; those without members do nothing.
        members: `TaskArrays.members`.
        FIELDS: numbers that tell a tile.
        The others are as in `decode_kernel`.
    """
    GROUP: tl.constexpr = HEADS // KV_HEADS
    DTYPE: tl.constexpr = queries.dtype.element_ty
    kv_head = tl.program_id(0) % KV_HEADS
    tile = tiles + tl.program_id(0) // KV_HEADS * FIELDS
    slot, first, end = tl.load(tile), tl.load(tile + 1), tl.load(tile + 2)
    member, count, piece = tl.load(tile + 3), tl.load(tile + 4), tl.load(tile + 5)
    row = tl.arange(0, ROWS)
    d = tl.arange(0, BLOCK_D)
    head = kv_head * GROUP + row % GROUP
    live = row < count * GROUP
    who = members + 2 * (member + row // GROUP)
    token = tl.load(who, mask=live, other=0).to(tl.int64)
    cells = (tl.load(who + 1, mask=live, other=0) + piece).to(tl.int64) * HEADS + head
    q = tl.load(
        queries + ((token * HEADS + head) * HEAD_DIM)[:, None] + d[None, :],
        mask=live[:, None] & (d < HEAD_DIM)[None, :],
        other=0.0,
    )
    query_scales = tl.zeros([ROWS], tl.float32)
    if PRODUCT > 0:
        q, query_scales = round_queries(q, FORMAT)
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, BLOCK_D], tl.float32)
    acc, total, top = attend(
        acc, total, top, q, query_scales, keys + kv_head * STRIDE_HEAD,
        values + kv_head * STRIDE_HEAD, key_scales, value_scales,
        block_tables + slot.to(tl.int64) * table_stride, first, end, row, 0, kv_head,
        scale * LOG2E, KV_HEADS, HEAD_DIM, BLOCK_D, BLOCK_SIZE, STRIDE_BLOCK, STRIDE_TOKEN,
        BLOCK_N, STAGES, "end", FORMAT, PRODUCT, DTYPE, PTX,
    )  # fmt: skip
    store_piece(acc, total, top, piece_values, piece_lse, cells, live, HEAD_DIM, BLOCK_D)
