"""Sampling on a device in plain torch: the oracle of Triton's, and what a stand-in computes.

For checking, not for speed: rows are sorted, one after the other.
"""

import torch
from torch import Tensor

from engine.kernels.fused.sampling import (
    IN_PROMPT,
    REPORT_IDS,
    REPORT_VALUES,
    Column,
    SampledRows,
    SamplerTensors,
    Workspace,
)

_WORD = 0xFFFFFFFF


class ReferenceSampling:
    """See `engine.kernels.fused.sampling.SamplingKernels`."""

    def draw(
        self,
        rows: SampledRows,
        state: SamplerTensors,
        room: Workspace,
        *,
        adjusted: bool,
        filtered: bool,
    ) -> None:
        """See `SamplingKernels.draw`."""
        slots, positions = rows.slots.tolist(), rows.positions.tolist()
        for row, (slot, position) in enumerate(zip(slots, positions, strict=True)):
            if slot < 0:
                continue
            numbers = Slot(state, slot)
            logits = clean(rows.logits[row])
            if adjusted:
                adjust(logits, numbers, state, position)
            token = drawn(logits, numbers, position, filtered)
            rows.tokens[row] = token
            state.last_tokens[slot] = token
            if adjusted and numbers.whole(Column.COUNT_ROW) >= 0:
                state.counts[numbers.whole(Column.COUNT_ROW), token] += 1

    def report(
        self, rows: SampledRows, state: SamplerTensors, room: Workspace, report: Tensor
    ) -> None:
        """See `SamplingKernels.report`."""
        for row, slot in enumerate(rows.slots.tolist()):
            wanted = -1 if slot < 0 else Slot(state, slot).whole(Column.REPORTED)
            if wanted < 0:
                continue
            values = torch.log_softmax(clean(rows.logits[row]), -1)
            ranked, ids = values.sort(descending=True, stable=True)
            bits = report[row].view(torch.float32)
            bits[0] = values[rows.tokens[row]]
            bits[REPORT_VALUES : REPORT_VALUES + wanted] = ranked[:wanted]
            report[row, REPORT_IDS : REPORT_IDS + wanted] = ids[:wanted]


class Slot:
    """One slot's row of the table."""

    def __init__(self, state: SamplerTensors, slot: int) -> None:
        self._words: list[int] = state.table[slot].tolist()
        self._reals: list[float] = state.table[slot].view(torch.float32).tolist()

    def whole(self, column: Column) -> int:
        """A column that holds a whole number."""
        return self._words[column]

    def real(self, column: Column) -> float:
        """A column that holds a float."""
        return self._reals[column]

    @property
    def seed(self) -> int:
        """64 bits, unsigned."""
        low, high = self._words[Column.SEED_LOW], self._words[Column.SEED_HIGH]
        return (high & _WORD) << 32 | (low & _WORD)


def clean(logits: Tensor) -> Tensor:
    """A float32 copy in which NaN is -infinity, and nothing is above the largest number."""
    wide = logits.float()
    largest = torch.finfo(torch.float32).max
    return torch.where(wide.isnan(), -torch.inf, wide).clamp_max(largest)


def adjust(logits: Tensor, slot: Slot, state: SamplerTensors, position: int) -> None:
    """Add biases, apply penalties, ban tokens: one row, in place."""
    if slot.whole(Column.LIST_ROW) >= 0:
        ids, bits = state.lists[slot.whole(Column.LIST_ROW)].chunk(2)
        biased = slot.whole(Column.BIASED)
        banned = ids[biased : biased + slot.whole(Column.BANNED)].long()
        logits[ids[:biased].long()] += bits.view(torch.float32)[:biased]
    if slot.whole(Column.COUNT_ROW) >= 0:
        counts = state.counts[slot.whole(Column.COUNT_ROW)]
        penalty = slot.real(Column.REPETITION)
        penalized = torch.where(logits > 0, logits / penalty, logits * penalty)
        logits.copy_(torch.where(counts != 0, penalized, logits))
        times = counts & (IN_PROMPT - 1)
        taken = slot.real(Column.FREQUENCY) * times + slot.real(Column.PRESENCE)
        logits.sub_(torch.where(times > 0, taken, 0.0))
    if slot.whole(Column.LIST_ROW) >= 0 and position < slot.whole(Column.FREE_FROM):
        logits[banned] = -torch.inf


def drawn(logits: Tensor, slot: Slot, position: int, filtered: bool) -> int:
    """The token of one row of adjusted logits."""
    inverse = slot.real(Column.INVERSE_TEMPERATURE)
    if inverse == 0:
        return int(logits.argmax())
    scores = logits * inverse + gumbel(slot.seed, position, len(logits), logits.device)
    if filtered and slot.whole(Column.FILTERED):
        scores = torch.where(kept(logits, slot), scores, -torch.inf)
    return int(scores.argmax())


def kept(logits: Tensor, slot: Slot) -> Tensor:
    """bool [vocab]: what top-k, then top-p of that, then min-p leave in; sums are in float64."""
    wide = (logits.double() - logits.double().max()) * slot.real(Column.INVERSE_TEMPERATURE)
    weights = wide.nan_to_num(nan=-torch.inf, neginf=-torch.inf).exp()
    order = logits.sort(descending=True, stable=True).indices
    ranked = weights[order]
    top_k, top_p = slot.whole(Column.TOP_K), slot.real(Column.TOP_P)
    if top_k > 0:
        ranked[top_k:] = 0
    keep = torch.arange(len(order), device=order.device) < (top_k if top_k > 0 else len(order))
    if top_p < 1:
        keep &= ranked.cumsum(0) - ranked < top_p * ranked.sum()
    inside = torch.zeros_like(keep).scatter_(0, order, keep)
    return inside & (weights >= slot.real(Column.MIN_P))


def gumbel(seed: int, position: int, vocab_size: int, device: torch.device) -> Tensor:
    """float32 [vocab] of Gumbel noise."""
    v = (token_hash(seed, position, vocab_size, device).float() * 2**-32 + 2**-33).clamp_max(
        1 - 2**-24
    )
    # -log(1 - v), by its series where the subtraction would lose bits.
    series = v * (1 + v * (0.5 + v * (1 / 3 + v * 0.25)))
    return -torch.where(v < 2**-6, series, -torch.log(1 - v)).log()


def token_hash(seed: int, position: int, vocab_size: int, device: torch.device) -> Tensor:
    """int64 [vocab]: 32 bits for each token id."""
    row = _spread((seed + _spread(position)) % 2**64)
    x = torch.arange(vocab_size, dtype=torch.int64, device=device)
    x = (x * 0x9E3779B9 + (row & _WORD)) & _WORD
    x = ((x ^ (x >> 16)) * 0x7FEB352D + (row >> 32)) & _WORD
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _WORD
    return x ^ (x >> 16)


def _spread(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)
