"""From logits to tokens, for all rows of a step at once.

Order of the passes, as in vLLM: log-probabilities are of the raw logits; then the processors of a
row, if it has any: logit bias, repetition, presence and frequency penalties, the ban on end tokens
below ``min_tokens`` (`engine.sampling.processors`); then temperature, top-k, top-p, min-p and the
draw (`engine.kernels.sampling`).
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.kernels.draws import DRAW, Draws, Tokens
from engine.sampling.processors import LogitsProcessor, make_processors
from engine.sampling.seeds import combined, spread
from engine.scheduler.step import Admission, SampledToken


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
        # By slot. Most rows are described by numbers alone; the others have processors as well.
        self._draws: Draws = np.zeros(max_num_seqs, dtype=DRAW)
        self._seeds = np.zeros(max_num_seqs, dtype=np.uint64)
        self._seeded = np.zeros(max_num_seqs, dtype=bool)
        self._positions = np.zeros(max_num_seqs, dtype=np.uint64)
        self._logprobs = np.full(max_num_seqs, -1)
        self._simple = np.zeros(max_num_seqs, dtype=bool)
        self._processors: dict[int, list[LogitsProcessor]] = {}

    def admit(self, slot: int, admission: Admission) -> None:
        """Prepare a slot for a sequence that begins, or comes back after a preemption."""
        params, outputs = admission.params, admission.output_ids
        temperature = 0.0 if params.greedy else params.temperature
        self._draws[slot] = (temperature, params.top_p, params.min_p, 0.0, params.top_k)
        self._seeded[slot] = params.seed is not None
        self._seeds[slot] = combined(params.seed or 0, admission.index)
        self._positions[slot] = len(admission.prompt) + len(outputs)
        wanted = params.sampled_logprobs
        self._logprobs[slot] = -1 if wanted is None else wanted
        processors = make_processors(admission, self._end_token_ids, self._device)
        self._set_processors(slot, processors)

    def _set_processors(self, slot: int, processors: list[LogitsProcessor]) -> None:
        if processors:
            self._processors[slot] = processors
        else:
            self._processors.pop(slot, None)
        greedy = self._draws["temperature"][slot] == 0
        self._simple[slot] = greedy and not processors and self._logprobs[slot] < 0

    def reads_logits(self, slots: Sequence[int]) -> bool:
        """Whether any of these slots needs more than the argmax of its logits."""
        return not self._simple[slots].all()

    def choose(self, token_ids: list[int], slots: Sequence[int]) -> list[SampledToken]:
        """Take the argmax of each row's logits, where `reads_logits` is false."""
        self.advance(slots)
        return [SampledToken(token_id) for token_id in token_ids]

    def advance(self, slots: Sequence[int]) -> None:
        """As `choose`, where the tokens are handed over otherwise."""
        self._positions[slots] += np.uint64(1)

    def sample(self, logits: Tensor, slots: Sequence[int]) -> list[SampledToken]:
        """Choose one token a row.

        Args:
            logits: float32 [rows, vocab]; changed in place.
            slots: the slot of each row.
        """
        reported = np.flatnonzero(self._logprobs[slots] >= 0).tolist()
        raw = torch.log_softmax(logits[reported], dim=-1) if reported else None
        changed = [i for i, slot in enumerate(slots) if slot in self._processors]
        for i in changed:
            row = logits[i]
            for processor in self._processors[slots[i]]:
                processor.apply(row)
        draws = self._draws[slots]
        draws["uniform"] = self._uniform(slots)
        token_ids: list[int] = self._drawing(logits, draws).tolist()
        for i in changed:
            self._remember(slots[i], token_ids[i])
        sampled = self.choose(token_ids, slots)
        if raw is not None:
            self._report(sampled, raw, reported, slots)
        return sampled

    def _uniform(self, slots: Sequence[int]) -> NDArray[np.float32]:
        """float32 [rows] in [0, 1); a seeded row's from its seed, output index and position."""
        uniform = self._random.random(len(slots), dtype=np.float32)
        seeded = self._seeded[slots]
        if seeded.any():
            own = spread(self._seeds[slots] + spread(self._positions[slots]))
            uniform[seeded] = ((own >> np.uint64(40)) / np.float32(2**24))[seeded]
        return uniform

    def _remember(self, slot: int, token_id: int) -> None:
        processors = self._processors[slot]
        for processor in processors:
            processor.remember(token_id)
        if any(processor.done for processor in processors):
            self._set_processors(slot, [each for each in processors if not each.done])

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
