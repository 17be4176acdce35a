"""Pieces: the attention of a row over some of its keys, with the log-sum-exp that weighs it."""

import triton
import triton.language as tl


@triton.jit
def fold_pieces(
    acc, total, top, piece_values, piece_lse, cells, count, live, HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Go on with an online softmax over ``count`` pieces of each row.

    Args:
        acc, total, top: as in `attend`.
        piece_values: float32 [pieces, HEADS, HEAD_DIM].
        piece_lse: float32 [pieces, HEADS]; base 2.
        cells: int64 [rows]; the first piece of each row, times HEADS, plus its head.
        count: pieces of each row; they follow each other.
        live: [rows]; the others read nothing.
    """
    d = tl.arange(0, BLOCK_D)
    for index in range(count):
        cell = cells + index * HEADS
        lse = tl.load(piece_lse + cell, mask=live, other=0.0)
        x = tl.load(
            piece_values + cell[:, None] * HEAD_DIM + d[None, :],
            mask=live[:, None] & (d < HEAD_DIM)[None, :],
            other=0.0,
        )
        new_top = tl.maximum(top, lse)
        decay = tl.exp2(top - new_top)
        weight = tl.exp2(lse - new_top)
        acc = acc * decay[:, None] + x * weight[:, None]
        total = total * decay + weight
        top = new_top
    return acc, total, top


@triton.jit
def store_piece(
    acc, total, top, piece_values, piece_lse, cells, live, HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Write the rows that an online softmax has come to as pieces; see `fold_pieces`."""
    d = tl.arange(0, BLOCK_D)
    safe = tl.where(total > 0, total, 1.0)
    tl.store(
        piece_values + cells[:, None] * HEAD_DIM + d[None, :],
        acc / safe[:, None],
        mask=live[:, None] & (d < HEAD_DIM)[None, :],
    )
    tl.store(piece_lse + cells, top + tl.log2(safe), mask=live)


@triton.jit(do_not_specialize=["splits", "own_pieces", "window"])
def merge_kernel(
    out, piece_values, piece_lse, query_start, contexts, shared, split_keys, pieces, splits,
    own_pieces, window, HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr,
    PIECES: tl.constexpr, SPLIT_KEYS: tl.constexpr, WINDOW: tl.constexpr, SHARED: tl.constexpr,
):  # fmt: skip
    """Weigh the pieces of split decodes by their log-sum-exp. Grid: (decodes · HEADS,).

    Args:
        out: [T, HEADS * HEAD_DIM]; written for decodes that have keys.
        piece_values, piece_lse: as in `fold_pieces`.
        query_start, contexts: of the step.
        shared, split_keys, pieces: of `TaskArrays`.
        splits: pieces that each decode has room for, from ``own_pieces`` on.
        window: keys that a row sees; read if WINDOW.
        PIECES: pieces read at once.
        SPLIT_KEYS: a split is a multiple of these.
        SHARED: whether there are pieces over segments.
    """
    head, sequence = tl.program_id(0) % HEADS, tl.program_id(0) // HEADS
    context = tl.load(contexts + sequence)
    first, count = 0, 0
    hidden = 0
    if SHARED:
        first = tl.load(pieces + 2 * sequence)
        count = tl.load(pieces + 2 * sequence + 1)
        hidden = tl.load(shared + sequence)
    if WINDOW:
        hidden = tl.maximum(context - window, 0) // SPLIT_KEYS * SPLIT_KEYS
    own = tl.cdiv(context - hidden, tl.load(split_keys + sequence))
    d = tl.arange(0, BLOCK_D)
    top = float("-inf")
    total = 0.0
    acc = tl.zeros([BLOCK_D], tl.float32)
    for start in range(0, own + count, PIECES):
        index = start + tl.arange(0, PIECES)
        live = index < own + count
        piece = tl.where(
            index < own, own_pieces + sequence * splits + index, first + index - own
        ).to(tl.int64)
        cells = piece * HEADS + head
        lse = tl.load(piece_lse + cells, mask=live, other=float("-inf"))
        x = tl.load(
            piece_values + cells[:, None] * HEAD_DIM + d[None, :],
            mask=live[:, None] & (d < HEAD_DIM)[None, :],
            other=0.0,
        )
        new_top = tl.maximum(top, tl.max(lse, 0))
        weights = tl.exp2(lse - new_top)
        decay = tl.exp2(top - new_top)
        acc = acc * decay + tl.sum(x * weights[:, None], 0)
        total = total * decay + tl.sum(weights, 0)
        top = new_top
    row = tl.load(query_start + sequence).to(tl.int64)
    tl.store(
        out + (row * HEADS + head) * HEAD_DIM + d,
        (acc / tl.where(total > 0, total, 1.0)).to(out.dtype.element_ty),
        mask=d < tl.where(context > 0, HEAD_DIM, 0),
    )
