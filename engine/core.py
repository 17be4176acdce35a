"""The engine's loop: schedule, launch, collect. One object, one thread, no I/O."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from engine.cache.block_pool import BlockPool
from engine.cache.eviction import LeastRecentlyUsed
from engine.config import EngineConfig, ModelConfig
from engine.errors import InvalidRequest
from engine.executors.executor import Pending
from engine.executors.machine import hardware_name
from engine.executors.placement import Placement
from engine.executors.runner import Sampled, SampledTokens, StepRunner
from engine.executors.start import start_runner
from engine.info import EngineInfo
from engine.models.check import check_model
from engine.output import FinishedRequest, OutputBuilder, RequestOutputs
from engine.request_check import check_request
from engine.requests import EngineStats, FinishReason, Request
from engine.scheduler.admission import AdmissionPolicy, Continuous, Static
from engine.scheduler.prompt_scores import PromptScores
from engine.scheduler.scheduler import Limits, Scheduler
from engine.scheduler.sequence import Sequence
from engine.scheduler.step import SampledToken, Step
from engine.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is ready to run steps.

    Attributes:
        name: what it is called in reports.
        config: its shape.
        tokenizer: text and tokens.
        runner: runs its steps.
        load_seconds: what loading took.
    """

    name: str
    config: ModelConfig
    tokenizer: Tokenizer
    runner: StepRunner
    load_seconds: float = 0.0


def load(config: EngineConfig) -> LoadedModel:
    """Find a model's files and load it on this machine.

    Raises:
        EngineError: it cannot be found or loaded; see `engine.errors`.
    """
    began = perf_counter()
    found = check_model(config.model, control_tokens_in_messages=config.control_tokens_in_messages)
    runner = start_runner(config, found.config, found.files)
    seconds = perf_counter() - began
    return LoadedModel(found.files.name, found.config, found.tokenizer, runner, seconds)


class EngineCore:
    """A loaded model with its scheduler. `add` requests, then `step` until `has_work` is false.

    Args:
        config: the engine's settings.
        loaded: the model to use, instead of the one that ``config`` names.

    Attributes:
        info: what was chosen for this machine.
        tokenizer: the model's.
        runner: runs its steps; for those who measure it.
    """

    def __init__(self, config: EngineConfig, loaded: LoadedModel | None = None) -> None:
        loaded = loaded or load(config)
        self.tokenizer = loaded.tokenizer
        self.runner = loaded.runner
        self.info = _describe(config, loaded)
        self._model = loaded.config
        self._end_token_ids = frozenset(loaded.config.eos_token_ids)
        self._ends = np.zeros(loaded.config.vocab_size, dtype=np.bool_)
        self._ends[[each for each in self._end_token_ids if each < len(self._ends)]] = True
        self._scheduler = _make_scheduler(config, self.runner.placement)
        self._in_flight: deque[tuple[Step, Pending[Sampled]]] = deque()
        self._builders: dict[Sequence, OutputBuilder] = {}
        self._live: dict[str, RequestOutputs] = {}
        self._finished: list[FinishedRequest] = []  # not returned by `step` yet
        self._counts = {"steps": 0, "prompt": 0, "cached": 0, "output": 0, "finished": 0}

    def on_progress(self, call: Callable[[], None]) -> None:
        """Have ``call`` called by `step` while it computes, so that a long one shows it goes on."""
        self.runner.on_layer(call)

    @property
    def has_work(self) -> bool:
        """Whether `step` has anything to do or to report."""
        return bool(self._finished or self._scheduler.has_work)

    def add(self, request: Request) -> None:
        """Take a request. One that can never run comes back from `step` with its error."""
        try:
            if request.id in self._live:
                raise InvalidRequest(f"Request id {request.id!r} is in use.", param="id")
            max_total = check_request(request, self.info.context_length, self._model.vocab_size)
        except InvalidRequest as error:
            self._finished.append(FinishedRequest(request, refusal=error))
            return
        count = request.params.num_generated
        sequences = [Sequence(request, index, max_total) for index in range(count)]
        if request.params.prompt_logprobs is not None:
            top = min(request.params.prompt_logprobs, self._model.vocab_size)
            sequences[0].scores = PromptScores(request.prompt, top)
        self._live[request.id] = RequestOutputs(request, sequences)
        for sequence in sequences:
            builder = OutputBuilder(sequence, self.tokenizer, self._end_token_ids)
            self._builders[sequence] = builder
            sequence.watched = builder.wants_every_token
            self._scheduler.add(sequence)

    def flush(self) -> None:
        """Say that no more requests come soon: a static batch need not fill."""
        self._scheduler.flush()

    def cancel(self, request_ids: Iterable[str]) -> list[FinishedRequest]:
        """Stop live requests; each comes back with what it has and reason ``cancelled``."""
        finished = []
        for request_id in request_ids:
            outputs = self._live.get(request_id)
            for sequence in outputs.sequences if outputs else ():
                if sequence.finish_reason is None:
                    finished += self._finish(sequence, "cancelled")
        return finished

    def step(self) -> list[FinishedRequest]:
        """Launch one step and collect those that are due; returns the requests that ended.

        Without steps in flight (`StepRunner.max_in_flight` of 0) it is one step from its start to
        its end. Refused requests come first.
        """
        try:
            self._advance()
        except BaseException:
            # Ctrl-C as well: blocks that are known as computed may not be.
            self._in_flight.clear()
            self._scheduler.abandon()
            raise
        finished, self._finished = self._finished, []  # kept where the step is interrupted
        return finished

    def _advance(self) -> None:
        step = self._scheduler.schedule()
        if step is not None:
            self._in_flight.append((step, self.runner.launch(step)))
            allowed = self.runner.max_in_flight
        else:  # the tokens of the oldest step may let one be scheduled
            allowed = len(self._in_flight) - 1
        while self._in_flight and (
            len(self._in_flight) > allowed or not self._scheduler.has_unfinished
        ):
            self._collect(*self._in_flight.popleft())

    def _collect(self, step: Step, pending: Pending[Sampled]) -> None:
        """Take a step's tokens; an output that ends keeps none of those after its end."""
        sampled = pending.collect()
        self._counts["steps"] += 1
        if isinstance(sampled, SampledTokens):
            if sampled.scored:
                self._scheduler.keep_scores(step, sampled.scored)
            ids, reports = sampled.token_ids, sampled.reports
            done = self._scheduler.append(step, ids, self._ends[ids])
            self._counts["output"] += done.quietly
            for place, sequence in done.left:
                self._push(sequence, (reports.get(place) or SampledToken(int(ids[place])),))
            return
        for slot, sequence in self._scheduler.collected(step).items():
            self._push(sequence, sampled[slot])

    def _push(self, sequence: Sequence, tokens: tuple[SampledToken, ...]) -> None:
        builder = self._builders[sequence]
        for token in tokens:
            before = sequence.num_output
            reason = builder.push(token)
            self._counts["output"] += sequence.num_output - before
            if reason is not None:
                self._finished += self._finish(sequence, reason)
                break

    def stats(self) -> EngineStats:
        """The counters now."""
        pool = self._scheduler.pool
        return EngineStats(
            waiting=len(self._scheduler.waiting),
            running=len(self._scheduler.running),
            total_blocks=pool.num_blocks,
            free_blocks=pool.num_free,
            steps=self._counts["steps"],
            prompt_tokens=self._counts["prompt"],
            cached_tokens=self._counts["cached"],
            output_tokens=self._counts["output"],
            preemptions=self._scheduler.preemptions,
            finished=self._counts["finished"],
        )

    def check(self) -> None:
        """Raise ``AssertionError`` unless the scheduler's state agrees with itself."""
        self._scheduler.check()

    def _finish(self, sequence: Sequence, reason: FinishReason) -> list[FinishedRequest]:
        sequence.finish_reason = reason
        self._scheduler.finish(sequence)
        if sequence.index == 0:
            self._counts["prompt"] += sequence.num_prompt
            self._counts["cached"] += sequence.num_cached or 0
        outputs = self._live[sequence.request.id]
        finished = outputs.add(sequence.index, self._builders.pop(sequence), reason)
        if finished is None:
            return []
        del self._live[sequence.request.id]
        self._counts["finished"] += 1
        return [finished]


def _make_scheduler(config: EngineConfig, placement: Placement) -> Scheduler:
    pool = BlockPool(
        placement.num_blocks,
        config.block_size,
        caching=config.prefix_caching,
        eviction=LeastRecentlyUsed(placement.num_blocks, placement.warm_blocks),
    )
    limits = Limits(
        max_num_seqs=placement.max_num_seqs,
        max_batch_tokens=placement.max_batch_tokens,
        chunked_prefill=config.chunked_prefill,
        output_reserve=config.output_reserve,
    )
    batch_size = min(config.batch_size or placement.max_num_seqs, placement.max_num_seqs)
    policy: AdmissionPolicy
    match config.batching:
        case "continuous":
            policy = Continuous(placement.max_num_seqs)
        case "static":
            policy = Static(batch_size)
        case "dynamic":
            policy = Static(batch_size, config.batch_timeout)
    return Scheduler(pool, policy, limits)


def _describe(config: EngineConfig, loaded: LoadedModel) -> EngineInfo:
    placement = loaded.runner.placement
    choice = placement.choice
    return EngineInfo(
        model=loaded.name,
        context_length=placement.max_model_len,
        vocab_size=loaded.config.vocab_size,
        device=str(placement.device),
        dtype=str(choice.dtype).removeprefix("torch."),
        num_blocks=placement.num_blocks,
        block_size=config.block_size,
        max_num_seqs=placement.max_num_seqs,
        max_batch_tokens=placement.max_batch_tokens,
        load_seconds=loaded.load_seconds,
        kernels=choice.backend.name,
        quantization=choice.quantization,
        kv_cache_dtype=str(choice.cache_dtype).removeprefix("torch."),
        threads=choice.threads,
        reasons=placement.reasons,
        hardware=hardware_name(placement.device),
    )
