"""Draws from whole rows: a maximum in each chunk, then the maximum of these."""

import triton
import triton.language as tl

from engine.kernels.triton.sampling.noise import noise
from engine.kernels.triton.sampling.rows import (
    COUNT_ROW,
    FILTERED,
    INVERSE_TEMPERATURE,
    LARGEST,
    LAST_ID,
    adjusted,
    load_logits,
    real,
    whole,
)


@triton.jit(do_not_specialize=["width"], do_not_specialize_on_alignment=["slots", "positions"])
def race(
    logits,
    slots,
    positions,
    table,
    counts,
    lists,
    width,
    best,
    where,
    sums,
    histogram,
    VOCAB: tl.constexpr,
    STRIDE: tl.constexpr,
    CHUNKS: tl.constexpr,
    CHUNK: tl.constexpr,
    BINS: tl.constexpr,
    ADJUSTED: tl.constexpr,
    FILTERING: tl.constexpr,
):
    """The maximum of logits / temperature + noise in one chunk of a row. Grid: (N, CHUNKS).

    Of a filtered row, the maximum of the logits and a sum of exponentials.

    Args:
        logits: [N, VOCAB], rows STRIDE apart.
        slots, positions: int32 [N]; nothing is written where a slot is below 0.
        table, counts, lists, width: see `adjusted`.
        best, where: [N, CHUNKS], written: maximum and its token.
        sums: float32 [N, CHUNKS], written: of exp((logit - maximum) / temperature).
        histogram: int32 [N, BINS]; set to 0 in filtered rows.
    """
    row = tl.program_id(0)
    chunk = tl.program_id(1)
    slot = tl.load(slots + row)
    if slot >= 0:
        position = tl.load(positions + row)
        ids = chunk * CHUNK + tl.arange(0, CHUNK)
        x = load_logits(logits, row, ids, VOCAB, STRIDE)
        if ADJUSTED:
            x = adjusted(x, ids, slot, position, table, counts, lists, width, VOCAB)
        inverse = real(table, slot, INVERSE_TEMPERATURE)
        at = row * CHUNKS + chunk
        if FILTERING and whole(table, slot, FILTERED) != 0:
            if chunk == 0:
                bins = tl.arange(0, BINS)
                tl.store(histogram + row * BINS + bins, tl.zeros([BINS], tl.int32))
            base = tl.maximum(tl.max(x, 0), -LARGEST)
            tl.store(sums + at, tl.sum(tl.exp((x - base) * inverse), 0))
        elif inverse > 0:
            x = x * inverse + noise(ids, slot, position, table)
        top = tl.max(x, 0)
        tl.store(best + at, top)
        tl.store(where + at, tl.min(tl.where(x == top, ids, LAST_ID), 0))


@triton.jit
def joined(best, where, row, CHUNKS: tl.constexpr, BLOCK: tl.constexpr):
    """The token of a row's maximum, from those of its chunks; the first where several are equal."""
    i = tl.arange(0, BLOCK)
    tops = tl.load(best + row * CHUNKS + i, mask=i < CHUNKS, other=float("-inf"))
    tokens = tl.load(where + row * CHUNKS + i, mask=i < CHUNKS, other=LAST_ID)
    return tl.min(tl.where(tops == tl.max(tops, 0), tokens, LAST_ID), 0)


@triton.jit
def give(
    token,
    row,
    slot,
    table,
    counts,
    tokens,
    last_tokens,
    VOCAB: tl.constexpr,
    ADJUSTED: tl.constexpr,
):
    """Write a row's token, note it as its slot's last one, and count it."""
    tl.store(tokens + row, token)
    tl.store(last_tokens + slot, token)
    if ADJUSTED:
        count_row = whole(table, slot, COUNT_ROW)
        if count_row >= 0:
            at = counts + count_row.to(tl.int64) * VOCAB + token
            tl.store(at, tl.load(at) + 1)


@triton.jit(do_not_specialize_on_alignment=["slots", "tokens"])
def settle(
    slots,
    table,
    counts,
    best,
    where,
    tokens,
    last_tokens,
    VOCAB: tl.constexpr,
    CHUNKS: tl.constexpr,
    BLOCK: tl.constexpr,
    ADJUSTED: tl.constexpr,
):
    """The tokens of rows of which none is filtered. Grid: (N,).

    Args:
        slots: int32 [N]; nothing is written where a slot is below 0.
        table, counts: see `SamplerTensors`.
        best, where: [N, CHUNKS], of `race`.
        tokens: int32 [N]; written.
        last_tokens: int32 [slots]; written.
        BLOCK: CHUNKS, rounded up to a power of two.
    """
    row = tl.program_id(0)
    slot = tl.load(slots + row)
    if slot >= 0:
        token = joined(best, where, row, CHUNKS, BLOCK)
        give(token, row, slot, table, counts, tokens, last_tokens, VOCAB, ADJUSTED)
