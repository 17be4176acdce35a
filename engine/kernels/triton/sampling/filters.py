"""The few tokens of a row that top-k, top-p and min-p may leave in.

Tokens are counted in bins by how far they are below the row's maximum, in eighths of a nat of
logit / temperature. The counts bound where top-k ends; as the upper ends of the bins bound what all
tokens below weigh, they bound where top-p ends. What is above the bound is kept apart and searched
(`cut`).
"""

import triton
import triton.language as tl

from engine.kernels.triton.sampling.rows import (
    FILTERED,
    INVERSE_TEMPERATURE,
    LARGEST,
    MIN_P,
    TOP_K,
    TOP_P,
    adjusted,
    load_logits,
    real,
    whole,
)

BINS_A_NAT = tl.constexpr(8.0)


@triton.jit
def _bin(x, top, inverse, BINS: tl.constexpr):
    """The bin of logits; the last one has all that is far below, and what is -infinity."""
    return tl.minimum((top - x) * (inverse * BINS_A_NAT), BINS - 1.0).to(tl.int32)


@triton.jit
def _highest(best, row, CHUNKS: tl.constexpr, BLOCK: tl.constexpr):
    """The maximum of a row, a finite number."""
    i = tl.arange(0, BLOCK)
    tops = tl.load(best + row * CHUNKS + i, mask=i < CHUNKS, other=float("-inf"))
    return tl.maximum(tl.max(tops, 0), -LARGEST)


@triton.jit(do_not_specialize=["width"], do_not_specialize_on_alignment=["slots", "positions"])
def tally(
    logits,
    slots,
    positions,
    table,
    counts,
    lists,
    width,
    best,
    histogram,
    VOCAB: tl.constexpr,
    STRIDE: tl.constexpr,
    CHUNKS: tl.constexpr,
    CHUNK_BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    BINS: tl.constexpr,
    ADJUSTED: tl.constexpr,
):
    """Count the tokens of a chunk in each bin. Grid: (N, CHUNKS).

    Args:
        logits, slots, positions, table, counts, lists, width, best: as in `race`.
        histogram: int32 [N, BINS]; added to.
        CHUNK_BLOCK: CHUNKS, rounded up to a power of two.
    """
    row = tl.program_id(0)
    slot = tl.load(slots + row)
    filtered = (slot >= 0) & (whole(table, tl.maximum(slot, 0), FILTERED) != 0)
    if filtered:
        ids = tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
        x = load_logits(logits, row, ids, VOCAB, STRIDE)
        if ADJUSTED:
            position = tl.load(positions + row)
            x = adjusted(x, ids, slot, position, table, counts, lists, width, VOCAB)
        top = _highest(best, row, CHUNKS, CHUNK_BLOCK)
        found = tl.histogram(_bin(x, top, real(table, slot, INVERSE_TEMPERATURE), BINS), BINS)
        tl.atomic_add(histogram + row * BINS + tl.arange(0, BINS), found, mask=found > 0)


@triton.jit(do_not_specialize_on_alignment=["slots"])
def bound(
    slots,
    table,
    best,
    sums,
    histogram,
    bounds,
    found,
    CHUNKS: tl.constexpr,
    CHUNK_BLOCK: tl.constexpr,
    BINS: tl.constexpr,
):
    """The last bin that a row's filters leave anything of. Grid: (N,).

    Args:
        slots: int32 [N].
        table: see `SamplerTensors`.
        best, sums: of `race`.
        histogram: of `tally`.
        bounds: float32 [N, 3]; written: maximum, sum of exponentials, last bin.
        found: int32 [N]; set to 0.
        CHUNK_BLOCK: CHUNKS, rounded up to a power of two.
    """
    row = tl.program_id(0)
    slot = tl.load(slots + row)
    filtered = (slot >= 0) & (whole(table, tl.maximum(slot, 0), FILTERED) != 0)
    if filtered:
        inverse = real(table, slot, INVERSE_TEMPERATURE)
        i = tl.arange(0, CHUNK_BLOCK)
        tops = tl.load(best + row * CHUNKS + i, mask=i < CHUNKS, other=float("-inf"))
        shares = tl.load(sums + row * CHUNKS + i, mask=i < CHUNKS, other=0.0)
        top = _highest(best, row, CHUNKS, CHUNK_BLOCK)
        total = tl.sum(shares * tl.exp((tl.maximum(tops, -LARGEST) - top) * inverse), 0)
        bins = tl.arange(0, BINS)
        tokens = tl.load(histogram + row * BINS + bins)
        last = tl.full([], BINS - 1, tl.int32)
        k = whole(table, slot, TOP_K)
        top_p = real(table, slot, TOP_P)
        min_p = real(table, slot, MIN_P)
        if k > 0:
            last = tl.minimum(last, tl.sum((tl.cumsum(tokens, 0) < k).to(tl.int32), 0))
        elif top_p < 1.0:
            # At most what the tokens of a bin and of all below weigh; sums are rounded.
            most = tl.cumsum(tokens.to(tl.float32) * tl.exp(bins * (-1.0 / BINS_A_NAT)), 0, True)
            spare = (1.0 - top_p) * total * 0.999
            last = tl.maximum(tl.sum((most > spare).to(tl.int32), 0) - 1, 0)
        if (top_p >= 1.0) & (min_p > 0.0):
            lowest = tl.minimum(tl.log(min_p) * -BINS_A_NAT + 0.01, BINS - 1.0)
            last = tl.minimum(last, lowest.to(tl.int32))
        tl.store(bounds + row * 3, top)
        tl.store(bounds + row * 3 + 1, total)
        tl.store(bounds + row * 3 + 2, last.to(tl.float32))
        tl.store(found + row, 0)


@triton.jit(do_not_specialize=["width"], do_not_specialize_on_alignment=["slots", "positions"])
def gather(
    logits,
    slots,
    positions,
    table,
    counts,
    lists,
    width,
    best,
    bounds,
    found,
    candidates,
    candidate_ids,
    VOCAB: tl.constexpr,
    STRIDE: tl.constexpr,
    CHUNKS: tl.constexpr,
    CHUNK: tl.constexpr,
    BINS: tl.constexpr,
    CANDIDATES: tl.constexpr,
    ADJUSTED: tl.constexpr,
):
    """Keep the tokens of the bins that are needed apart, in any order. Grid: (N, CHUNKS).

    Args:
        logits, slots, positions, table, counts, lists, width, best: as in `race`.
        bounds: of `bound`.
        found: int32 [N]; how many there are is added, also of those for which there is no room.
        candidates, candidate_ids: [N, CANDIDATES], written: adjusted logits and token ids.
    """
    row = tl.program_id(0)
    chunk = tl.program_id(1)
    slot = tl.load(slots + row)
    filtered = (slot >= 0) & (whole(table, tl.maximum(slot, 0), FILTERED) != 0)
    if filtered:
        inverse = real(table, slot, INVERSE_TEMPERATURE)
        top = tl.load(bounds + row * 3)
        last = tl.load(bounds + row * 3 + 2).to(tl.int32)
        if _bin(tl.load(best + row * CHUNKS + chunk), top, inverse, BINS) <= last:
            ids = chunk * CHUNK + tl.arange(0, CHUNK)
            x = load_logits(logits, row, ids, VOCAB, STRIDE)
            if ADJUSTED:
                position = tl.load(positions + row)
                x = adjusted(x, ids, slot, position, table, counts, lists, width, VOCAB)
            needed = (_bin(x, top, inverse, BINS) <= last) & (x > float("-inf"))
            count = tl.sum(needed.to(tl.int32), 0)
            if count > 0:
                first = tl.atomic_add(found + row, count)
                place = first + tl.cumsum(needed.to(tl.int32), 0) - 1
                at = row * CANDIDATES + place
                tl.store(candidates + at, x, mask=needed & (place < CANDIDATES))
                tl.store(candidate_ids + at, ids, mask=needed & (place < CANDIDATES))
