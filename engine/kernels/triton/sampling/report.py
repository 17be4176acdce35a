"""Log-probabilities of the raw logits: the drawn token's, and the most probable ones."""

import triton
import triton.language as tl

from engine.kernels.triton.sampling.rows import (
    LARGEST,
    LAST_ID,
    REPORTED,
    load_logits,
    order,
    unordered,
    whole,
)

TAKEN = tl.constexpr(-(2**31))  # below every logit's key


@triton.jit(do_not_specialize_on_alignment=["slots"])
def report_chunks(
    logits,
    slots,
    table,
    best,
    sums,
    top_keys,
    top_ids,
    VOCAB: tl.constexpr,
    STRIDE: tl.constexpr,
    CHUNKS: tl.constexpr,
    CHUNK: tl.constexpr,
    ALTERNATIVES: tl.constexpr,
):
    """The first tokens of one chunk of a row, and its sum of exponentials. Grid: (N, CHUNKS).

    Args:
        logits: [N, VOCAB], rows STRIDE apart.
        slots: int32 [N]; nothing is written where a slot is below 0 or wants no report.
        table: see `SamplerTensors`.
        best, sums: float32 [N, CHUNKS], written: maximum, sum of exp(logit - maximum).
        top_keys, top_ids: int32 [N, CHUNKS, ALTERNATIVES]; as many are written as the slot wants.
    """
    row = tl.program_id(0)
    chunk = tl.program_id(1)
    slot = tl.load(slots + row)
    if slot >= 0:
        wanted = whole(table, slot, REPORTED)
        if wanted >= 0:
            ids = chunk * CHUNK + tl.arange(0, CHUNK)
            x = load_logits(logits, row, ids, VOCAB, STRIDE)
            at = row * CHUNKS + chunk
            top = tl.maximum(tl.max(x, 0), -LARGEST)
            tl.store(best + at, top)
            tl.store(sums + at, tl.sum(tl.exp(x - top), 0))
            keys = tl.where(ids < VOCAB, order(x), TAKEN)
            for n in range(wanted):
                key = tl.max(keys, 0)
                token = tl.min(tl.where(keys == key, ids, LAST_ID), 0)
                tl.store(top_keys + at * ALTERNATIVES + n, key)
                tl.store(top_ids + at * ALTERNATIVES + n, token)
                keys = tl.where(ids == token, TAKEN, keys)


@triton.jit(do_not_specialize_on_alignment=["slots", "tokens"])
def report_rows(
    logits,
    slots,
    table,
    best,
    sums,
    top_keys,
    top_ids,
    tokens,
    report,
    VOCAB: tl.constexpr,
    STRIDE: tl.constexpr,
    CHUNKS: tl.constexpr,
    BLOCK: tl.constexpr,
    ALTERNATIVES: tl.constexpr,
    TOP_BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """The reports of rows, from those of their chunks. Grid: (N,).

    Args:
        logits, slots, table, best, sums, top_keys, top_ids: as in `report_chunks`.
        tokens: int32 [N]; the drawn ones.
        report: int32 [N, WIDTH]; see `SamplingKernels.report`.
        BLOCK, TOP_BLOCK: CHUNKS and CHUNKS · ALTERNATIVES, rounded up to powers of two.
    """
    row = tl.program_id(0)
    slot = tl.load(slots + row)
    if slot >= 0:
        wanted = whole(table, slot, REPORTED)
        if wanted >= 0:
            i = tl.arange(0, BLOCK)
            tops = tl.load(best + row * CHUNKS + i, mask=i < CHUNKS, other=-LARGEST)
            shares = tl.load(sums + row * CHUNKS + i, mask=i < CHUNKS, other=0.0)
            top = tl.max(tops, 0)
            total = tl.log(tl.sum(shares * tl.exp(tops - top), 0))
            line = report + row * WIDTH
            x = load_logits(logits, row, tl.load(tokens + row), VOCAB, STRIDE)
            tl.store(line, ((x - top) - total).to(tl.int32, bitcast=True))
            j = tl.arange(0, TOP_BLOCK)
            live = (j < CHUNKS * ALTERNATIVES) & (j % ALTERNATIVES < wanted)
            at = row * CHUNKS * ALTERNATIVES + j
            keys = tl.load(top_keys + at, mask=live, other=TAKEN)
            ids = tl.load(top_ids + at, mask=live, other=LAST_ID)
            for n in range(wanted):
                key = tl.max(keys, 0)
                token = tl.min(tl.where(keys == key, ids, LAST_ID), 0)
                value = (unordered(key) - top) - total
                tl.store(line + 1 + n, value.to(tl.int32, bitcast=True))
                tl.store(line + 1 + ALTERNATIVES + n, token)
                keys = tl.where(ids == token, TAKEN, keys)
