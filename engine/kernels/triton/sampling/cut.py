"""The exact cut of top-k and top-p among the candidates of a row, and the draw from what is left.

A row's order is that of logits, and of token ids where these are equal. Both filters keep its
beginning, so they are a key (a logit as an ordered integer), of which all above stay in, and the
last token id that stays in of those that are equal to it. Weights are summed as integers, in units
of 2⁻³⁶ of the maximum: the sum does not depend on the order in which candidates were found.
"""

import triton
import triton.language as tl

from engine.kernels.triton.sampling.noise import noise
from engine.kernels.triton.sampling.race import give, joined
from engine.kernels.triton.sampling.rows import (
    FILTERED,
    INVERSE_TEMPERATURE,
    LAST_ID,
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

UNIT = tl.constexpr(68719476736.0)  # 2³⁶
LOWEST = tl.constexpr(-(2**31))


@triton.jit
def _weight(x, top, inverse):
    """The weight of logits in units of 2⁻³⁶, int64."""
    return (tl.exp((x - top) * inverse) * UNIT).to(tl.int64)


@triton.jit
def _read(
    i,
    count,
    again,
    row,
    slot,
    position,
    logits,
    table,
    counts,
    lists,
    width,
    candidates,
    candidate_ids,
    VOCAB: tl.constexpr,
    STRIDE: tl.constexpr,
    CANDIDATES: tl.constexpr,
    ADJUSTED: tl.constexpr,
):
    """Candidates ``i`` of a row and their ids; of the whole row where it is to be read again."""
    if again:
        ids = i
        x = load_logits(logits, row, ids, VOCAB, STRIDE)
        if ADJUSTED:
            x = adjusted(x, ids, slot, position, table, counts, lists, width, VOCAB)
    else:
        at = row * CANDIDATES + i
        x = tl.load(candidates + at, mask=i < count, other=float("-inf"))
        ids = tl.load(candidate_ids + at, mask=i < count, other=LAST_ID)
    return tl.where(x == 0.0, 0.0, x), ids


@triton.jit
def _element(values, n):
    """One element of 16."""
    return tl.sum(tl.where(tl.arange(0, 16) == n, values, 0), 0)


@triton.jit
def _search(
    by_mass, target, top, inverse, count, again,
    row, slot, position, logits, table, counts, lists, width, candidates, candidate_ids,
    VOCAB: tl.constexpr, STRIDE: tl.constexpr, CANDIDATES: tl.constexpr, ADJUSTED: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The greatest key with the target at and above it, in numbers of tokens or in their mass.

    Returns:
        The key, and int64 [16] twice: in the first two places numbers and masses at and above the
        key, and above it.
    """
    steps = tl.arange(0, 16)
    i = tl.arange(0, BLOCK)
    cut = tl.full([], LOWEST, tl.int32)
    numbers = tl.zeros([16], tl.int64)
    masses = tl.zeros([16], tl.int64)
    for n in range(9):  # 4 bits at a time; then what is at and above the cut
        shift = tl.maximum(28 - 4 * n, 0)
        last = n == 8
        spread = tl.where(last, tl.minimum(steps, 1), steps << shift)
        thresholds = cut + spread
        numbers = tl.zeros([16], tl.int64)
        masses = tl.zeros([16], tl.int64)
        for start in range(0, count, BLOCK):
            x, _ = _read(
                start + i, count, again,
                row, slot, position, logits, table, counts, lists, width, candidates, candidate_ids,
                VOCAB, STRIDE, CANDIDATES, ADJUSTED,
            )  # fmt: skip
            inside = order(x)[None, :] >= thresholds[:, None]
            inside = inside & (start + i < count)[None, :]
            numbers += tl.sum(inside.to(tl.int32), 1).to(tl.int64)
            weight = _weight(x, top, inverse)[None, :]
            masses += tl.sum(tl.where(inside, weight, 0), 1)
        sums = tl.where(by_mass, masses, numbers)
        digit = tl.max(tl.where(sums >= target, steps, 0), 0)
        cut += tl.where(last, 0, digit << shift)
    return cut, numbers, masses


@triton.jit
def _last_id(
    cut, kept, equal, count, again,
    row, slot, position, logits, table, counts, lists, width, candidates, candidate_ids,
    VOCAB: tl.constexpr, STRIDE: tl.constexpr, CANDIDATES: tl.constexpr, ADJUSTED: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The id of the last token at the cut that stays in: the highest that fewer are below."""
    steps = tl.arange(0, 16)
    i = tl.arange(0, BLOCK)
    last_id = tl.full([], 0, tl.int32)
    for n in range(tl.where(kept < equal, 6, 0)):
        thresholds = last_id + (steps << (20 - 4 * n))
        numbers = tl.zeros([16], tl.int64)
        for start in range(0, count, BLOCK):
            x, ids = _read(
                start + i, count, again,
                row, slot, position, logits, table, counts, lists, width, candidates, candidate_ids,
                VOCAB, STRIDE, CANDIDATES, ADJUSTED,
            )  # fmt: skip
            here = (order(x) == cut) & (start + i < count)
            below = here[None, :] & (ids[None, :] < thresholds[:, None])
            numbers += tl.sum(below.to(tl.int32), 1).to(tl.int64)
        digit = tl.max(tl.where(numbers < kept, steps, 0), 0)
        last_id += digit << (20 - 4 * n)
    return tl.where(kept < equal, last_id, LAST_ID)


@triton.jit
def _draw(
    cut, last_id, min_p, top, inverse, count, again,
    row, slot, position, logits, table, counts, lists, width, candidates, candidate_ids,
    VOCAB: tl.constexpr, STRIDE: tl.constexpr, CANDIDATES: tl.constexpr, ADJUSTED: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The token with the highest score of those that stay in; 0 where none does."""
    i = tl.arange(0, BLOCK)
    best_score = tl.full([], float("-inf"), tl.float32)
    token = tl.full([], LAST_ID, tl.int32)
    for start in range(0, count, BLOCK):
        x, ids = _read(
            start + i, count, again,
            row, slot, position, logits, table, counts, lists, width, candidates, candidate_ids,
            VOCAB, STRIDE, CANDIDATES, ADJUSTED,
        )  # fmt: skip
        key = order(x)
        stays = (key > cut) | ((key == cut) & (ids <= last_id))
        stays = stays & (tl.exp((x - top) * inverse) >= min_p) & (start + i < count)
        score = x * inverse + noise(ids, slot, position, table)
        score = tl.where(stays, score, float("-inf"))
        score_here = tl.max(score, 0)
        token_here = tl.min(tl.where(stays & (score == score_here), ids, LAST_ID), 0)
        tied = (score_here == best_score) & (token_here < token)
        token = tl.where((score_here > best_score) | tied, token_here, token)
        best_score = tl.maximum(best_score, score_here)
    return tl.where(token == LAST_ID, 0, token)


@triton.jit(
    do_not_specialize=["width"], do_not_specialize_on_alignment=["slots", "positions", "tokens"]
)
def pick(
    logits,
    slots,
    positions,
    table,
    counts,
    lists,
    width,
    best,
    where,
    bounds,
    found,
    candidates,
    candidate_ids,
    tokens,
    last_tokens,
    VOCAB: tl.constexpr,
    STRIDE: tl.constexpr,
    CHUNKS: tl.constexpr,
    CHUNK_BLOCK: tl.constexpr,
    CANDIDATES: tl.constexpr,
    BLOCK: tl.constexpr,
    ADJUSTED: tl.constexpr,
):
    """The tokens of rows of which some are filtered. Grid: (N,).

    Args:
        logits, slots, positions, table, counts, lists, width, best, where: as in `race`.
        bounds, found, candidates, candidate_ids: of `bound` and `gather`.
        tokens: int32 [N]; written.
        last_tokens: int32 [slots]; written.
        CHUNK_BLOCK: CHUNKS, rounded up to a power of two.
        BLOCK: candidates that are searched at once.
    """
    row = tl.program_id(0)
    slot = tl.load(slots + row)
    if slot >= 0:
        if whole(table, slot, FILTERED) == 0:
            token = joined(best, where, row, CHUNKS, CHUNK_BLOCK)
        else:
            position = tl.load(positions + row)
            inverse = real(table, slot, INVERSE_TEMPERATURE)
            min_p = real(table, slot, MIN_P)
            top_p = real(table, slot, TOP_P)
            k = whole(table, slot, TOP_K)
            top = tl.load(bounds + row * 3)
            mass = (tl.load(bounds + row * 3 + 1) * UNIT).to(tl.int64)
            count = tl.load(found + row)
            again = count > CANDIDATES
            count = tl.where(again, VOCAB, count)
            cut = tl.full([], LOWEST, tl.int32)
            kept = tl.full([], LAST_ID, tl.int32)  # tokens that stay in of those at the cut
            equal = tl.full([], 0, tl.int32)  # tokens at the cut
            for stage in range(2):  # top-k, then top-p of what it leaves
                by_mass = stage == 1
                if (by_mass & (top_p < 1.0)) | ((stage == 0) & (k > 0)):
                    share = top_p.to(tl.float64) * mass.to(tl.float64)
                    target = share.to(tl.int64)
                    target += (target.to(tl.float64) < share).to(tl.int64)
                    target = tl.where(by_mass, tl.maximum(target, 1), k.to(tl.int64))
                    cut, numbers, masses = _search(
                        by_mass, target, top, inverse, count, again,
                        row, slot, position, logits, table, counts, lists, width, candidates,
                        candidate_ids, VOCAB, STRIDE, CANDIDATES, ADJUSTED, BLOCK,
                    )  # fmt: skip
                    above = _element(tl.where(by_mass, masses, numbers), 1)
                    equal = (_element(numbers, 0) - _element(numbers, 1)).to(tl.int32)
                    # Where all of the row is below the target there is no logit at the cut.
                    x = tl.where(equal > 0, unordered(cut), top)
                    each = tl.maximum(_weight(x, top, inverse), 1)
                    each = tl.where(by_mass, each, 1)
                    kept = ((target - above + each - 1) // each).to(tl.int32)
                    mass = _element(masses, 1)
                    if stage == 0:
                        stay = tl.minimum(kept, equal).to(tl.int64)
                        mass += stay * _weight(x, top, inverse)
            last_id = _last_id(
                cut, kept, equal, count, again,
                row, slot, position, logits, table, counts, lists, width, candidates, candidate_ids,
                VOCAB, STRIDE, CANDIDATES, ADJUSTED, BLOCK,
            )  # fmt: skip
            token = _draw(
                cut, last_id, min_p, top, inverse, count, again,
                row, slot, position, logits, table, counts, lists, width, candidates, candidate_ids,
                VOCAB, STRIDE, CANDIDATES, ADJUSTED, BLOCK,
            )  # fmt: skip
        give(token, row, slot, table, counts, tokens, last_tokens, VOCAB, ADJUSTED)
