"""The few tokens of a row that top-k, top-p and min-p may leave in.

The k-th highest of the maxima of disjoint runs is a bound below the k-th highest logit, as k logits
reach it. All tokens that weigh less than (1 - p) · sum / vocab weigh less than 1 - p together, so
top-p leaves them out. What is above the bound is kept apart and searched (`cut`).
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
    order,
    real,
    unordered,
    whole,
)


@triton.jit
def _kth_highest(x, k):
    """The k-th highest of a block's floats, found 4 bits at a time."""
    keys = order(x)
    steps = tl.arange(0, 16)
    low = tl.full([], -(2**31), tl.int32)
    for n in range(8):
        thresholds = low + (steps << (28 - 4 * n))
        reached = tl.sum((keys[None, :] >= thresholds[:, None]).to(tl.int32), 1)
        low += tl.max(tl.where(reached >= k, steps, 0), 0) << (28 - 4 * n)
    return unordered(low)


@triton.jit
def bound(
    slots,
    table,
    best,
    sums,
    peaks,
    bounds,
    found,
    VOCAB: tl.constexpr,
    CHUNKS: tl.constexpr,
    BLOCK: tl.constexpr,
    PEAKS: tl.constexpr,
    PEAK_BLOCK: tl.constexpr,
):
    """A bound below the logits that a row's filters leave in. Grid: (N,).

    Args:
        slots: int32 [N].
        table: see `SamplerTensors`.
        best, sums, peaks: of `race`.
        bounds: float32 [N, 3]; written: maximum, sum of exponentials, bound.
        found: int32 [N]; set to 0.
        BLOCK, PEAK_BLOCK: CHUNKS and PEAKS, rounded up to powers of two.
    """
    row = tl.program_id(0)
    slot = tl.load(slots + row)
    filtered = (slot >= 0) & (whole(table, tl.maximum(slot, 0), FILTERED) != 0)
    if filtered:
        inverse = real(table, slot, INVERSE_TEMPERATURE)
        i = tl.arange(0, BLOCK)
        tops = tl.load(best + row * CHUNKS + i, mask=i < CHUNKS, other=float("-inf"))
        tops = tl.maximum(tops, -LARGEST)
        top = tl.max(tops, 0)
        shares = tl.load(sums + row * CHUNKS + i, mask=i < CHUNKS, other=0.0)
        total = tl.sum(shares * tl.exp((tops - top) * inverse), 0)
        low = tl.full([], float("-inf"), tl.float32)
        k = whole(table, slot, TOP_K)
        top_p = real(table, slot, TOP_P)
        min_p = real(table, slot, MIN_P)
        if k > 0:
            if k <= PEAKS:
                j = tl.arange(0, PEAK_BLOCK)
                at = peaks + row * PEAKS + j
                highest = tl.load(at, mask=j < PEAKS, other=float("-inf"))
                low = _kth_highest(highest, k)
        elif top_p < 1.0:
            # Half of it, for sums are rounded.
            low = top + tl.log((1.0 - top_p) * total / (2.0 * VOCAB)) / inverse
        if (top_p >= 1.0) & (min_p > 0.0):
            low = tl.maximum(low, top + (tl.log(min_p) - 1e-3) / inverse)
        tl.store(bounds + row * 3, top)
        tl.store(bounds + row * 3 + 1, total)
        tl.store(bounds + row * 3 + 2, low)
        tl.store(found + row, 0)


@triton.jit(do_not_specialize=["width"])
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
    CANDIDATES: tl.constexpr,
    ADJUSTED: tl.constexpr,
):
    """Keep the tokens above the bound apart, in any order. Grid: (N, CHUNKS).

    Args:
        logits, slots, positions, table, counts, lists, width, best: as in `race`.
        bounds: of `bound`.
        found: int32 [N]; how many there are is added, also of those for which there is no room.
        candidates, candidate_ids: [N, CANDIDATES], written: adjusted logits and token ids.
    """
    row = tl.program_id(0)
    chunk = tl.program_id(1)
    slot = tl.load(slots + row)
    if slot >= 0:
        low = tl.load(bounds + row * 3 + 2)
        filtered = whole(table, slot, FILTERED) != 0
        if filtered & (tl.load(best + row * CHUNKS + chunk) >= low):
            ids = chunk * CHUNK + tl.arange(0, CHUNK)
            x = load_logits(logits, row, ids, VOCAB, STRIDE)
            if ADJUSTED:
                position = tl.load(positions + row)
                x = adjusted(x, ids, slot, position, table, counts, lists, width, VOCAB)
            above = (x >= low) & (x > float("-inf"))
            count = tl.sum(above.to(tl.int32), 0)
            if count > 0:
                first = tl.atomic_add(found + row, count)
                place = first + tl.cumsum(above.to(tl.int32), 0) - 1
                at = row * CANDIDATES + place
                tl.store(candidates + at, x, mask=above & (place < CANDIDATES))
                tl.store(candidate_ids + at, ids, mask=above & (place < CANDIDATES))
