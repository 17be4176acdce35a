"""From logits to tokens, for all rows of a step at once.

Order of the passes, as in vLLM: log-probabilities are of the raw logits; then logit bias,
repetition (CTRL, Keskar et al. 2019), presence and frequency penalties, the ban on end tokens below
``min_tokens``; then temperature, top-k, top-p, min-p and the draw (`engine.kernels.sampling`).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.kernels.draws import DRAW, Draws, Tokens
from engine.params import SamplingParams
from engine.scheduler.step import Admission, SampledToken


@dataclass(slots=True)
class RowState:
    """What sampling remembers of a slot whose logits are not used as they are.

    ``prompt_ids`` (int64, distinct) are kept only where the repetition penalty asks for them, and
    ``counts`` (token id → times in the answer) only where any penalty does.
    """

    params: SamplingParams
    num_output: int
    prompt_ids: Tensor | None
    counts: dict[int, int] | None

    @property
    def plain(self) -> bool:
        """Whether the logits are used as they are."""
        return (
            self.counts is None
            and not self.params.logit_bias
            and self.num_output >= self.params.min_tokens
        )


class Sampler:
    """Chooses the next token of each sampled row.

    Args:
        vocab_size: length of a row of logits.
        max_num_seqs: number of slots.
        end_token_ids: the model's end-of-sequence ids.
        device: where logits live.
        seed: seeds the draws of requests without a seed of their own; ``None`` is random.
        drawing: draws from rows of logits: ``draw`` of a backend.
    """

    def __init__(
        self,
        vocab_size: int,
        max_num_seqs: int,
        end_token_ids: Sequence[int],
        device: torch.device,
        seed: int | None,
        drawing: Callable[[Tensor, Draws], Tokens],
    ) -> None:
        self._vocab_size = vocab_size
        self._end_token_ids = tuple(end_token_ids)
        self._device = device
        self._drawing = drawing
        self._random = np.random.default_rng(seed)
        # By slot. Most rows are described by numbers alone; the others have a `RowState` as well.
        self._draws: Draws = np.zeros(max_num_seqs, dtype=DRAW)
        self._seeds = np.zeros(max_num_seqs, dtype=np.uint64)
        self._seeded = np.zeros(max_num_seqs, dtype=bool)
        self._positions = np.zeros(max_num_seqs, dtype=np.uint64)
        self._logprobs = np.full(max_num_seqs, -1)
        self._simple = np.zeros(max_num_seqs, dtype=bool)
        self._rows: dict[int, RowState] = {}

    def admit(self, slot: int, admission: Admission) -> None:
        """Prepare a slot for a sequence that begins, or comes back after a preemption."""
        params, outputs = admission.params, admission.output_ids
        temperature = 0.0 if params.greedy else params.temperature
        self._draws[slot] = (temperature, params.top_p, params.min_p, 0.0, params.top_k)
        self._seeded[slot] = params.seed is not None
        self._seeds[slot] = _mixed(params.seed or 0, admission.index)
        self._positions[slot] = len(admission.prompt) + len(outputs)
        self._logprobs[slot] = -1 if params.logprobs is None else params.logprobs
        row = self._row(admission)
        self._rows.pop(slot, None)
        if not row.plain:
            self._rows[slot] = row
        self._simple[slot] = row.plain and params.logprobs is None and params.greedy

    def _row(self, admission: Admission) -> RowState:
        params, outputs = admission.params, admission.output_ids
        repeats = params.repetition_penalty != 1
        counts = prompt_ids = None
        if repeats or params.presence_penalty or params.frequency_penalty:
            counts = dict(Counter(outputs))
        if repeats:
            prompt_ids = self._tensor(sorted(set(admission.prompt)))
        return RowState(params, len(outputs), prompt_ids, counts)

    def reads_logits(self, slots: Sequence[int]) -> bool:
        """Whether any of these slots needs more than the token with the greatest logit."""
        return not self._simple[slots].all()

    def choose(self, token_ids: list[int], slots: Sequence[int]) -> list[SampledToken]:
        """Take the tokens with the greatest logits, where `reads_logits` is false."""
        self._positions[slots] += np.uint64(1)
        return [SampledToken(token_id) for token_id in token_ids]

    def sample(self, logits: Tensor, slots: Sequence[int]) -> list[SampledToken]:
        """Choose one token a row.

        Args:
            logits: float32 [rows, vocab]; changed in place.
            slots: the slot of each row.
        """
        reported = np.flatnonzero(self._logprobs[slots] >= 0).tolist()
        raw = torch.log_softmax(logits[reported], dim=-1) if reported else None
        changed = [i for i, slot in enumerate(slots) if slot in self._rows]
        for i in changed:
            self._adjust(logits[i], self._rows[slots[i]])
        draws = self._draws[slots]
        draws["uniform"] = self._uniform(slots)
        token_ids: list[int] = self._drawing(logits, draws).tolist()
        for i in changed:
            self._remember(slots[i], token_ids[i])
        sampled = self.choose(token_ids, slots)
        if raw is not None:
            self._report(sampled, raw, reported, slots)
        return sampled

    def _tensor(self, token_ids: Iterable[int]) -> Tensor:
        return torch.tensor(list(token_ids), dtype=torch.int64, device=self._device)

    def _adjust(self, logits: Tensor, row: RowState) -> None:
        """Bias, penalties and bans of one row, in place; touches only the tokens concerned."""
        params = row.params
        if params.logit_bias:
            values = torch.tensor(list(params.logit_bias.values()), device=self._device)
            logits[self._tensor(params.logit_bias)] += values
        if row.counts is not None:
            self._penalize(logits, row, row.counts)
        if row.num_output < params.min_tokens:
            logits[self._tensor((*self._end_token_ids, *params.stop_token_ids))] = -torch.inf

    def _penalize(self, logits: Tensor, row: RowState, counts: dict[int, int]) -> None:
        params, answered = row.params, self._tensor(counts)
        if row.prompt_ids is not None:
            seen = torch.unique(torch.cat((row.prompt_ids, answered)))
            scores, penalty = logits[seen], params.repetition_penalty
            logits[seen] = torch.where(scores > 0, scores / penalty, scores * penalty)
        if params.frequency_penalty or params.presence_penalty:
            times = torch.tensor(list(counts.values()), device=self._device)
            logits[answered] -= params.frequency_penalty * times + params.presence_penalty

    def _uniform(self, slots: Sequence[int]) -> NDArray[np.float32]:
        """float32 [rows] in [0, 1); a seeded row's from its seed, answer index and position."""
        uniform = self._random.random(len(slots), dtype=np.float32)
        seeded = self._seeded[slots]
        if seeded.any():
            own = _hash(self._seeds[slots] + _hash(self._positions[slots]))
            uniform[seeded] = ((own >> np.uint64(40)) / np.float32(2**24))[seeded]
        return uniform

    def _remember(self, slot: int, token_id: int) -> None:
        row = self._rows[slot]
        row.num_output += 1
        if row.counts is not None:
            row.counts[token_id] = row.counts.get(token_id, 0) + 1
        if row.plain:  # past its min_tokens
            del self._rows[slot]
            self._simple[slot] = row.params.logprobs is None and row.params.greedy

    def _report(
        self, sampled: list[SampledToken], raw: Tensor, reported: list[int], slots: Sequence[int]
    ) -> None:
        """Fill in log-probabilities of the ``reported`` rows from ``raw`` [reported, vocab]."""
        ids = torch.tensor([sampled[i].token_id for i in reported], device=self._device)
        chosen = raw.gather(1, ids.unsqueeze(1)).squeeze(1).tolist()
        counts = [int(self._logprobs[slots[i]]) for i in reported]
        values, top_ids = (t.tolist() for t in raw.topk(min(max(counts), self._vocab_size), dim=-1))
        for n, i in enumerate(reported):
            top = tuple(zip(top_ids[n][: counts[n]], values[n][: counts[n]], strict=True))
            sampled[i] = SampledToken(sampled[i].token_id, chosen[n], top)


def _hash(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """64 well-mixed bits of each number (the finalizer of SplitMix64, Steele et al. 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _mixed(seed: int, index: int) -> np.uint64:
    """A seed, which may be of any size and sign, and the answer's index, in 64 bits."""
    words = np.array([seed % 2**64, (seed >> 64) % 2**64, index], dtype=np.uint64)
    first, second, third = _hash(words)
    mixed: np.uint64 = _hash(np.array([first ^ (second << np.uint64(1)) ^ third]))[0]
    return mixed
