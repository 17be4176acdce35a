"""From logits to tokens, for all rows of a step at once.

Order of the passes, as in vLLM: log-probabilities are of the raw logits; then logit bias,
repetition (CTRL, Keskar et al. 2019), presence and frequency penalties, the ban on end tokens below
``min_tokens``; then temperature, top-k, top-p (Holtzman et al. 2020) and min-p. A draw inverts the
cumulative distribution at one uniform number a row (inverse transform sampling, Devroye 1986,
section II.2), which costs a sum over the vocabulary where noise for every token would cost forty
times that.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import torch

from engine.params import SamplingParams
from engine.scheduler.step import Admission, SampledToken

# How many of the most probable tokens top-k and top-p look at before the whole vocabulary.
_CANDIDATES = 256


@dataclass(slots=True)
class RowState:
    """What sampling remembers of one slot.

    ``prompt_ids`` (int64, distinct) are kept only where the repetition penalty asks for them, and
    ``counts`` (token id → times in the answer) only where any penalty does.
    """

    params: SamplingParams
    index: int
    position: int
    num_output: int
    prompt_ids: torch.Tensor | None
    counts: dict[int, int] | None

    @property
    def plain(self) -> bool:
        """Whether the logits are used as they are."""
        return (
            self.counts is None
            and not self.params.logit_bias
            and self.num_output >= self.params.min_tokens
        )

    @property
    def greatest(self) -> bool:
        """Whether the token is the one with the greatest logit, and nothing else is asked for."""
        return self.params.greedy and self.params.logprobs is None and self.plain

    @property
    def filtered(self) -> bool:
        """Whether only the most probable tokens may be drawn."""
        return self.params.top_k > 0 or self.params.top_p < 1


class Sampler:
    """Chooses the next token of each sampled row.

    Args:
        vocab_size: length of a row of logits.
        max_num_seqs: number of slots.
        end_token_ids: the model's end-of-sequence ids.
        device: where logits live.
        seed: seeds the draws of requests without a seed of their own.
    """

    def __init__(
        self,
        vocab_size: int,
        max_num_seqs: int,
        end_token_ids: Sequence[int],
        device: torch.device,
        seed: int | None,
    ) -> None:
        self._vocab_size = vocab_size
        self._end_token_ids = tuple(end_token_ids)
        self._device = device
        self._rows: list[RowState | None] = [None] * max_num_seqs
        self._generator = torch.Generator(device)
        if seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(seed)

    def admit(self, slot: int, admission: Admission) -> None:
        """Prepare a slot for a sequence that begins, or comes back after a preemption."""
        params, outputs = admission.params, admission.output_ids
        repeats = params.repetition_penalty != 1
        counts = prompt_ids = None
        if repeats or params.presence_penalty or params.frequency_penalty:
            counts = dict(Counter(outputs))
        if repeats:
            prompt_ids = self._tensor(sorted(set(admission.prompt)))
        self._rows[slot] = RowState(
            params=params,
            index=admission.index,
            position=len(admission.prompt) + len(outputs),
            num_output=len(outputs),
            prompt_ids=prompt_ids,
            counts=counts,
        )

    def reads_logits(self, slots: Sequence[int]) -> bool:
        """Whether any of these slots needs more than the token with the greatest logit."""
        return not all(self._row(slot).greatest for slot in slots)

    def choose(self, token_ids: list[int], slots: Sequence[int]) -> list[SampledToken]:
        """Take the tokens with the greatest logits, where `reads_logits` is false."""
        for slot in slots:
            self._row(slot).num_output += 1
        return [SampledToken(token_id) for token_id in token_ids]

    def sample(self, logits: torch.Tensor, slots: Sequence[int]) -> list[SampledToken]:
        """Choose one token a row.

        Args:
            logits: float32 [rows, vocab]; changed in place.
            slots: the slot of each row.
        """
        rows = [self._row(slot) for slot in slots]
        wanted = [i for i, row in enumerate(rows) if row.params.logprobs is not None]
        raw = torch.log_softmax(logits[wanted], dim=-1) if wanted else None
        for i, row in enumerate(rows):
            if not row.plain:
                self._adjust(logits[i], row)
        drawn = [i for i, row in enumerate(rows) if not row.params.greedy]
        chosen = logits.argmax(dim=-1)
        if len(drawn) == len(rows):
            chosen = self._draw(logits, rows)
        elif drawn:
            chosen[drawn] = self._draw(logits[drawn], [rows[i] for i in drawn])
        token_ids: list[int] = chosen.tolist()
        for row, token_id in zip(rows, token_ids, strict=True):
            self._remember(row, token_id)
        sampled = [SampledToken(token_id) for token_id in token_ids]
        if raw is not None:
            self._report(sampled, raw, wanted, rows)
        return sampled

    def _row(self, slot: int) -> RowState:
        row = self._rows[slot]
        if row is None:
            raise KeyError(f"slot {slot} was never admitted")
        return row

    def _tensor(self, token_ids: Iterable[int]) -> torch.Tensor:
        return torch.tensor(list(token_ids), dtype=torch.int64, device=self._device)

    def _adjust(self, logits: torch.Tensor, row: RowState) -> None:
        """Bias, penalties and bans of one row, in place; touches only the tokens concerned."""
        params = row.params
        if params.logit_bias:
            values = torch.tensor(list(params.logit_bias.values()), device=self._device)
            logits[self._tensor(params.logit_bias)] += values
        if row.counts is not None:
            self._penalise(logits, row, row.counts)
        if row.num_output < params.min_tokens:
            logits[self._tensor((*self._end_token_ids, *params.stop_token_ids))] = -torch.inf

    def _penalise(self, logits: torch.Tensor, row: RowState, counts: dict[int, int]) -> None:
        params, answered = row.params, self._tensor(counts)
        if row.prompt_ids is not None:
            seen = torch.unique(torch.cat((row.prompt_ids, answered)))
            scores, penalty = logits[seen], params.repetition_penalty
            logits[seen] = torch.where(scores > 0, scores / penalty, scores * penalty)
        if params.frequency_penalty or params.presence_penalty:
            times = torch.tensor(list(counts.values()), device=self._device)
            logits[answered] -= params.frequency_penalty * times + params.presence_penalty

    def _draw(self, logits: torch.Tensor, rows: list[RowState]) -> torch.Tensor:
        """Sample each row of ``logits`` float32 [rows, vocab] by its own parameters."""
        probs = torch.softmax(logits / self._column([r.params.temperature for r in rows]), dim=-1)
        uniform = self._uniform(rows)
        chosen = torch.empty(len(rows), dtype=torch.int64, device=self._device)
        # Rows of a kind go together, so that no row's result depends on its company's parameters.
        free = [i for i, row in enumerate(rows) if not row.filtered]
        if free:
            among = _pick(_keep_min_p(probs[free], self._min_p(rows, free)), uniform[free])
            chosen[free] = among
        few = [i for i, row in enumerate(rows) if row.filtered and row.params.top_k <= _CANDIDATES]
        many = [i for i, row in enumerate(rows) if row.params.top_k > _CANDIDATES]
        if few:
            many += self._draw_filtered(probs, rows, few, _CANDIDATES, uniform, chosen)
        if many:
            self._draw_filtered(probs, rows, sorted(many), self._vocab_size, uniform, chosen)
        return chosen

    def _draw_filtered(
        self,
        probs: torch.Tensor,
        rows: list[RowState],
        which: list[int],
        count: int,
        uniform: torch.Tensor,
        chosen: torch.Tensor,
    ) -> list[int]:
        """Draw the rows ``which`` among their ``count`` most probable tokens, into ``chosen``.

        Returns:
            The rows for which so many do not reach their top-p: their draw does not count.
        """
        values, ids = probs[which].topk(min(count, self._vocab_size), dim=-1)
        top_k = self._column([rows[i].params.top_k or self._vocab_size for i in which])
        top_p = self._column([rows[i].params.top_p for i in which])
        limited = top_k <= values.shape[1]
        rank = torch.arange(values.shape[1], device=self._device)
        values = values.masked_fill(rank >= top_k, 0)
        total = values.sum(dim=-1, keepdim=True)
        # Without top-k the share is one of the whole distribution, not of the candidates alone.
        mass = top_p * torch.where(limited, total, probs[which].sum(dim=-1, keepdim=True))
        before = values.cumsum(dim=-1) - values
        kept = values.masked_fill((before >= mass) & (top_p < 1), 0)
        kept = _keep_min_p(kept, self._min_p(rows, which))
        among = _pick(kept, uniform[which])
        chosen[which] = ids.gather(1, among.unsqueeze(1)).squeeze(1)
        if values.shape[1] == self._vocab_size:
            return []
        short = (~limited & (total < mass)).squeeze(1).tolist()
        return [i for i, is_short in zip(which, short, strict=True) if is_short]

    def _column(self, values: Sequence[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self._device).unsqueeze(1)

    def _min_p(self, rows: list[RowState], which: list[int]) -> torch.Tensor | None:
        values = [rows[i].params.min_p for i in which]
        return self._column(values) if any(values) else None

    def _uniform(self, rows: list[RowState]) -> torch.Tensor:
        """float32 [rows] in [0, 1); a seeded row's from its seed, answer index and position."""
        uniform = torch.rand(len(rows), generator=self._generator, device=self._device)
        seeded = [i for i, row in enumerate(rows) if row.params.seed is not None]
        if seeded:
            own = [_seeded_uniform(rows[i]) for i in seeded]
            uniform[seeded] = torch.tensor(own, device=self._device)
        return uniform

    def _remember(self, row: RowState, token_id: int) -> None:
        row.position += 1
        row.num_output += 1
        if row.counts is not None:
            row.counts[token_id] = row.counts.get(token_id, 0) + 1

    def _report(
        self,
        sampled: list[SampledToken],
        raw: torch.Tensor,
        wanted: list[int],
        rows: list[RowState],
    ) -> None:
        """Fill in log-probabilities of the ``wanted`` rows from ``raw`` [wanted, vocab]."""
        ids = torch.tensor([sampled[i].token_id for i in wanted], device=self._device)
        chosen = raw.gather(1, ids.unsqueeze(1)).squeeze(1).tolist()
        most = max(rows[i].params.logprobs or 0 for i in wanted)
        values, top_ids = (t.tolist() for t in raw.topk(min(most, self._vocab_size), dim=-1))
        for n, i in enumerate(wanted):
            count = rows[i].params.logprobs or 0
            top = tuple(zip(top_ids[n][:count], values[n][:count], strict=True))
            sampled[i] = SampledToken(sampled[i].token_id, chosen[n], top)


def _seeded_uniform(row: RowState) -> float:
    """One number in [0, 1), with the 24 bits that float32 holds exactly."""
    name = f"{row.params.seed}/{row.index}/{row.position}".encode()
    return (int.from_bytes(blake2b(name, digest_size=8).digest(), "big") >> 40) / 2**24


def _pick(weights: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """The index at which the cumulative weights pass ``uniform`` times their sum.

    Args:
        weights: float32 [rows, n], not negative, not all zero. A zero is never picked.
        uniform: float32 [rows] in [0, 1).

    Returns:
        int64 [rows].
    """
    sums = weights.cumsum(dim=-1)
    total = sums[:, -1:]
    # The product may round up to the total itself, which no cumulative weight passes.
    wanted = torch.minimum(uniform.unsqueeze(1) * total, total.nextafter(torch.zeros_like(total)))
    return torch.searchsorted(sums, wanted, right=True).squeeze(1)


def _keep_min_p(probs: torch.Tensor, min_p: torch.Tensor | None) -> torch.Tensor:
    """Zero what is less probable than min_p [rows, 1] times the most probable."""
    if min_p is None:
        return probs
    return probs.masked_fill(probs < min_p * probs.amax(dim=-1, keepdim=True), 0)
