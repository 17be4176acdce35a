"""Decodes: one query a sequence, its keys split among programs."""

import triton
import triton.language as tl

from engine.kernels.triton.attention.paged import LOG2E, attend, round_queries
from engine.kernels.triton.attention.pieces import fold_pieces, store_piece


@triton.jit(do_not_specialize=["window", "table_stride", "splits", "own_pieces"])
def decode_kernel(
    queries, keys, values, key_scales, value_scales, out, piece_values, piece_lse, query_start,
    contexts, slots, block_tables, shared, split_keys, pieces, scale, window, table_stride,
    splits, own_pieces, HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_SIZE: tl.constexpr, STRIDE_BLOCK: tl.constexpr,
    STRIDE_TOKEN: tl.constexpr, STRIDE_HEAD: tl.constexpr, ROWS: tl.constexpr,
    BLOCK_N: tl.constexpr, STAGES: tl.constexpr, SPLIT_KEYS: tl.constexpr, SPLIT: tl.constexpr,
    SHARED: tl.constexpr,
    WINDOW: tl.constexpr, FORMAT: tl.constexpr, PRODUCT: tl.constexpr, PTX: tl.constexpr,
):  # fmt: skip
    """Attention of decodes over their own keys. Grid: (decodes · KV_HEADS, splits).

    Args:
        queries: [T, HEADS, HEAD_DIM].
        keys, values: [blocks, BLOCK_SIZE, KV_HEADS, HEAD_DIM], by strides; see `widen`.
        key_scales, value_scales: float32 [blocks, BLOCK_SIZE, KV_HEADS]; read with 8 bits.
        out: [T, HEADS * HEAD_DIM]; written unless SPLIT. Sequences without keys are left alone.
        piece_values, piece_lse: see `fold_pieces`; written if SPLIT, from ``own_pieces`` on.
        query_start, contexts, slots, block_tables: of the step.
        shared, split_keys, pieces: of `TaskArrays`.
        scale: of the scores; above 0.
        window: keys that a row sees; read if WINDOW.
        table_stride: columns of the block tables.
        splits: the grid's second dimension.
        ROWS: at least 16, and the query heads of a KV head.
        SPLIT_KEYS: a split is a multiple of these; a window is counted from such a multiple on.
        SHARED: skip the keys that segments read; fold their pieces in, unless SPLIT.
        FORMAT, PRODUCT, PTX: see `attend`.
    """
    GROUP: tl.constexpr = HEADS // KV_HEADS
    DTYPE: tl.constexpr = queries.dtype.element_ty
    kv_head, sequence = tl.program_id(0) % KV_HEADS, tl.program_id(0) // KV_HEADS
    split = tl.program_id(1)
    context = tl.load(contexts + sequence)
    first = 0
    if SHARED:
        first = tl.load(shared + sequence)
    if WINDOW:
        first = tl.maximum(context - window, 0) // BLOCK_N * BLOCK_N
    end = context
    if SPLIT:
        length = tl.load(split_keys + sequence)
        if WINDOW:
            first = tl.maximum(context - window, 0) // SPLIT_KEYS * SPLIT_KEYS
        first += split * length
        end = tl.minimum(first + length, context)
    row = tl.arange(0, ROWS)
    d = tl.arange(0, BLOCK_D)
    head = kv_head * GROUP + row
    live = row < tl.where(first < end, GROUP, 0)
    token = tl.load(query_start + sequence).to(tl.int64)
    places = ((token * HEADS + head) * HEAD_DIM)[:, None] + d[None, :]
    mask = live[:, None] & (d < HEAD_DIM)[None, :]
    q = tl.load(queries + places, mask=mask, other=0.0)
    query_scales = tl.zeros([ROWS], tl.float32)
    if PRODUCT > 0:
        q, query_scales = round_queries(q, FORMAT)
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, BLOCK_D], tl.float32)
    if SHARED and not SPLIT:
        start = tl.load(pieces + 2 * sequence)
        cells = start.to(tl.int64) * HEADS + head
        acc, total, top = fold_pieces(
            acc, total, top, piece_values, piece_lse, cells, tl.load(pieces + 2 * sequence + 1),
            live, HEADS, HEAD_DIM, BLOCK_D,
        )  # fmt: skip
    acc, total, top = attend(
        acc, total, top, q, query_scales,
        keys + kv_head * STRIDE_HEAD, values + kv_head * STRIDE_HEAD, key_scales, value_scales,
        block_tables + tl.load(slots + sequence).to(tl.int64) * table_stride,
        first, end, tl.zeros([ROWS], tl.int32) + (context - 1), window, kv_head, scale * LOG2E,
        KV_HEADS, HEAD_DIM, BLOCK_D, BLOCK_SIZE, STRIDE_BLOCK, STRIDE_TOKEN, BLOCK_N, STAGES,
        "window" if WINDOW else "end", FORMAT, PRODUCT, DTYPE, PTX,
    )  # fmt: skip
    if SPLIT:
        piece = (own_pieces + sequence * splits + split).to(tl.int64)
        store_piece(
            acc, total, top, piece_values, piece_lse, piece * HEADS + head, live, HEAD_DIM, BLOCK_D
        )  # fmt: skip
    else:
        safe = tl.where(total > 0, total, 1.0)
        tl.store(out + places, (acc / safe[:, None]).to(DTYPE), mask=mask)
