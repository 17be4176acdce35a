"""Runs steps on a device: weights, KV cache, block tables and sampler live here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import cycle
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from engine.config import EngineConfig, ModelConfig
from engine.executors.build import Built
from engine.executors.executor import Pending, Scores
from engine.executors.placement import Placement
from engine.executors.score_step import score_step
from engine.executors.scored_rows import SLICE_LOGITS, ScoredRows
from engine.sampling.sampler import Sampler
from engine.scheduler.step import SampledToken, Step, TokenScores


@dataclass(frozen=True, slots=True, eq=False)
class SampledTokens:
    """One token for each of ``step.sampled_slots``, in their order.

    Attributes:
        token_ids: int64 [N].
        reports: by place in ``token_ids``, those whose log-probabilities were asked for.
        scored: by slot, what was asked of prompts (`Work.scoring`).
    """

    token_ids: NDArray[np.int64]
    reports: Mapping[int, SampledToken] = field(default_factory=dict)
    scored: Mapping[int, TokenScores] = field(default_factory=dict)


Sampled = SampledTokens | dict[int, tuple[SampledToken, ...]]
"""The next token of every work with ``sample`` set. By slot, where a runner speculates: then there
may be several for one (see `Scheduler.collected`)."""


class StepRunner(Protocol):
    """What the engine's loop needs of whoever runs its steps.

    Attributes:
        placement: what was chosen for the device.
        max_in_flight: steps that may be in flight while the next one is scheduled. Above 0, the
            runner puts the tokens in that `UNKNOWN_TOKEN` stands for.
    """

    placement: Placement
    max_in_flight: int

    def launch(self, step: Step) -> Pending[Sampled]:
        """Begin a step. Steps take effect in the order of their launch."""
        ...

    def on_layer(self, call: Callable[[], None]) -> None:
        """Have ``call`` called ahead of every layer of every step, where a step may be long."""
        ...


class Runner:
    """A model on one device. Tokens are sampled when a step is collected, so none overlap.

    Args:
        config: the engine's settings.
        model: the model.
        built: the model on its device.

    Attributes:
        placement: what was chosen for the device.
        executor: computes the steps.
    """

    max_in_flight = 0

    def __init__(self, config: EngineConfig, model: ModelConfig, built: Built) -> None:
        self.placement = built.placement
        self.executor = built.executor
        more = (built.inputs.another() for _ in range(self.max_in_flight))
        self._vocab_size = model.vocab_size
        self._inputs = cycle([built.inputs, *more])
        self._sampler = Sampler(
            model.vocab_size,
            self.placement.max_num_seqs,
            model.eos_token_ids,
            self.placement.device,
            config.seed,
            built.drawing,
        )

    def on_layer(self, call: Callable[[], None]) -> None:
        """See `StepRunner.on_layer`."""
        self.executor.on_layer(call)

    @torch.inference_mode()
    def launch(self, step: Step) -> Pending[Sampled]:
        """See `StepRunner.launch`."""
        for work in step.others:
            if work.admission is not None:
                self._sampler.admit(work.slot, work.admission)
        inputs = next(self._inputs)
        inputs.fill(step)
        slots = inputs.sampled_slots
        wanted = self._sampler.reads_logits(slots)
        scored = ScoredRows.of(step, inputs)
        if scored is not None:
            most = min(self.placement.max_num_seqs, max(1, SLICE_LOGITS // self._vocab_size))
            scores, found = score_step(self.executor, inputs, scored, most)
            return _PendingTokens(self._sampler, slots, wanted, scores, found)
        return _PendingTokens(
            self._sampler, slots, wanted, self.executor.launch(inputs, logits=wanted), {}
        )


class _PendingTokens:
    """A step whose scores were launched, and whose tokens are sampled from them."""

    def __init__(
        self,
        sampler: Sampler,
        slots: list[int],
        wanted: bool,
        scores: Pending[Scores],
        scored: Mapping[int, TokenScores],
    ) -> None:
        self._sampler = sampler
        self._slots = slots
        self._wanted = wanted
        self._scores = scores
        self._scored = scored

    @torch.inference_mode()
    def collect(self) -> Sampled:
        """See `Pending.collect`."""
        scores, slots = self._scores.collect(), self._slots
        if not self._wanted or scores.logits is None:
            self._sampler.advance(slots)
            return SampledTokens(scores.argmax, scored=self._scored)
        sampled = self._sampler.sample(scores.logits, slots)
        ids = np.array([each.token_id for each in sampled], dtype=np.int64)
        reports = {i: each for i, each in enumerate(sampled) if each.logprob is not None}
        return SampledTokens(ids, reports, self._scored)
