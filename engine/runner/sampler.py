"""From logits to tokens, for all rows of a step at once.

Order of the passes, as in vLLM: log-probabilities are of the raw logits; then logit bias,
repetition (CTRL, Keskar et al. 2019), presence and frequency penalties, the ban on end tokens below
``min_tokens``; then temperature, top-k, top-p (Holtzman et al. 2020) and min-p. A draw is the
arg-max of probability over exponential noise, which is a sample of the categorical distribution
(the Gumbel-max trick), and needs no synchronisation with the device.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import torch

from engine.params import SamplingParams
from engine.scheduler.step import Admission, SampledToken

# How many of the most probable tokens are looked at before the whole vocabulary is sorted.
_TOP_P_CANDIDATES = 1024


@dataclass(slots=True)
class RowState:
    """What sampling remembers of one slot.

    ``counts`` (int32 [vocab]) are the answer's tokens, ``seen`` (bool [vocab]) those of prompt and
    answer; both only where a penalty asks for them.
    """

    params: SamplingParams
    index: int
    position: int
    num_output: int
    counts: torch.Tensor | None
    seen: torch.Tensor | None

    @property
    def plain(self) -> bool:
        """Whether the logits are used as they are."""
        return (
            self.counts is None
            and self.seen is None
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
        counts = seen = None
        if params.presence_penalty or params.frequency_penalty:
            ids = torch.tensor(outputs, dtype=torch.int64, device=self._device)
            counts = torch.bincount(ids, minlength=self._vocab_size).to(torch.int32)
        if params.repetition_penalty != 1:
            seen = torch.zeros(self._vocab_size, dtype=torch.bool, device=self._device)
            seen[list(admission.prompt + outputs)] = True
        self._rows[slot] = RowState(
            params=params,
            index=admission.index,
            position=len(admission.prompt) + len(outputs),
            num_output=len(outputs),
            counts=counts,
            seen=seen,
        )

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
        if drawn:
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

    def _adjust(self, logits: torch.Tensor, row: RowState) -> None:
        """Bias, penalties and bans of one row, in place; nothing where none is set."""
        params = row.params
        if params.logit_bias:
            ids = torch.tensor(list(params.logit_bias), device=self._device)
            logits[ids] += torch.tensor(list(params.logit_bias.values()), device=self._device)
        if row.seen is not None:
            penalty = params.repetition_penalty
            scaled = torch.where(logits > 0, logits / penalty, logits * penalty)
            logits.copy_(torch.where(row.seen, scaled, logits))
        if row.counts is not None:
            logits -= params.frequency_penalty * row.counts
            logits -= params.presence_penalty * (row.counts > 0)
        if row.num_output < params.min_tokens:
            logits[list(self._end_token_ids + params.stop_token_ids)] = -torch.inf

    def _draw(self, logits: torch.Tensor, rows: list[RowState]) -> torch.Tensor:
        """Sample each row of ``logits`` float32 [rows, vocab] by its own parameters."""

        def column(values: list[float]) -> torch.Tensor:
            return torch.tensor(values, device=self._device).unsqueeze(1)

        probs = torch.softmax(logits / column([r.params.temperature for r in rows]), dim=-1)
        if any(r.params.top_k for r in rows):
            probs = _keep_top_k(probs, [r.params.top_k or self._vocab_size for r in rows])
        if any(r.params.top_p < 1 for r in rows):
            probs = _keep_top_p(probs, column([r.params.top_p for r in rows]))
        if any(r.params.min_p for r in rows):
            floor = column([r.params.min_p for r in rows]) * probs.amax(dim=-1, keepdim=True)
            probs = probs.masked_fill(probs < floor, 0)
        return (probs / self._noise(probs, rows)).argmax(dim=-1)

    def _noise(self, probs: torch.Tensor, rows: list[RowState]) -> torch.Tensor:
        """Exponential noise, of a seeded row from its seed, answer index and position alone."""
        noise = torch.empty_like(probs).exponential_(generator=self._generator)
        for i, row in enumerate(rows):
            if row.params.seed is not None:
                own = torch.Generator().manual_seed(_mix(row.params.seed, row.index, row.position))
                noise[i] = torch.empty(self._vocab_size).exponential_(generator=own)
        return noise.clamp_min_(torch.finfo(noise.dtype).tiny)

    def _remember(self, row: RowState, token_id: int) -> None:
        row.position += 1
        row.num_output += 1
        if row.counts is not None:
            row.counts[token_id] += 1
        if row.seen is not None:
            row.seen[token_id] = True

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


def _mix(seed: int, index: int, position: int) -> int:
    """A 63-bit seed for one draw, well spread over neighbouring seeds and positions."""
    digest = blake2b(f"{seed}/{index}/{position}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _keep_top_k(probs: torch.Tensor, top_k: list[int]) -> torch.Tensor:
    """Zero all but each row's k most probable tokens. probs: float32 [rows, vocab]."""
    limits = [min(k, probs.shape[1]) for k in top_k]
    limited = [i for i, k in enumerate(limits) if k < probs.shape[1]]
    if not limited:
        return probs
    most = max(limits[i] for i in limited)
    values = probs[limited].topk(most, dim=-1).values
    kth = torch.tensor([limits[i] - 1 for i in limited], device=probs.device).unsqueeze(1)
    threshold = torch.zeros(probs.shape[0], 1, device=probs.device)
    threshold[limited] = values.gather(1, kth)
    return probs.masked_fill(probs < threshold, 0)


def _keep_top_p(probs: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Zero all but the smallest set of tokens whose share reaches p.

    A row's mass nearly always lies in a few hundred tokens, so those are looked at first; the whole
    vocabulary is sorted only where they do not reach p.

    Args:
        probs: float32 [rows, vocab], zeros where top-k dropped a token.
        top_p: float32 [rows, 1]; 1 keeps all.
    """
    mass = probs.sum(dim=-1, keepdim=True) * top_p
    count = min(_TOP_P_CANDIDATES, probs.shape[1])
    values = probs.topk(count, dim=-1).values
    full = count < probs.shape[1] and bool(
        ((values.sum(dim=-1, keepdim=True) < mass) & (top_p < 1)).any()
    )
    if full:
        values = probs.sort(dim=-1, descending=True).values
    before = values.cumsum(dim=-1) - values
    kept = values.masked_fill(before >= mass, torch.inf)
    threshold = kept.amin(dim=-1, keepdim=True)
    return probs.masked_fill((probs < threshold) & (top_p < 1), 0)
