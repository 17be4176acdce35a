"""The engine's loop: schedule, execute, update. One object, one thread, no I/O."""

from collections.abc import Callable, Iterable
from time import perf_counter

from engine.cache.block_pool import BlockPool
from engine.catalog import resolve
from engine.config import EngineConfig, ModelConfig
from engine.errors import InvalidRequest, PromptTooLong
from engine.executors.placement import Placement
from engine.executors.runner import Runner
from engine.info import EngineInfo
from engine.models.families import load_config
from engine.output import Answer, Finished, RequestAnswers
from engine.requests import EngineStats, FinishReason, Request
from engine.scheduler.policy import AdmissionPolicy, Continuous, Static
from engine.scheduler.scheduler import Limits, Scheduler
from engine.scheduler.sequence import Sequence
from engine.scheduler.step import SampledToken, Step
from engine.tokenizer import Tokenizer, load_tokenizer


class EngineCore:
    """A loaded model with its scheduler. `add` requests, then `step` until `has_work` is false.

    Attributes:
        info: what was chosen for this machine.
        tokenizer: the model's.
        runner: executes its steps; for those who measure it.
    """

    def __init__(self, config: EngineConfig) -> None:
        began = perf_counter()
        files = resolve(config.model)
        model = load_config(files)
        self.tokenizer: Tokenizer = load_tokenizer(files)
        self.runner = Runner(config, model, files)
        self._model = model
        self._end_token_ids = frozenset(model.eos_token_ids)
        self._scheduler = _make_scheduler(config, self.runner.placement)
        self._answers: dict[Sequence, Answer] = {}
        self._live: dict[str, RequestAnswers] = {}
        self._refused: list[Finished] = []
        self._counts = {"steps": 0, "prompt": 0, "cached": 0, "output": 0, "finished": 0}
        self.info = _describe(files.name, config, model, self.runner, began)

    def on_progress(self, call: Callable[[], None]) -> None:
        """Have ``call`` called by `step` while it computes, so that a long one shows it goes on."""
        self.runner.on_layer(call)

    @property
    def has_work(self) -> bool:
        """Whether `step` has anything to do or to report."""
        return bool(self._refused or self._scheduler.has_work)

    def add(self, request: Request) -> None:
        """Take a request. One that can never run comes back from `step` with its error."""
        try:
            if request.id in self._live:
                raise InvalidRequest(f"Request id {request.id!r} is in use.", param="id")
            max_total = self._check(request)
        except InvalidRequest as error:
            self._refused.append(Finished(request, refusal=error))
            return
        sequences = [Sequence(request, index, max_total) for index in range(request.params.n)]
        answers = [Answer(s, self.tokenizer, self._end_token_ids) for s in sequences]
        self._live[request.id] = RequestAnswers(request, sequences)
        for sequence, answer in zip(sequences, answers, strict=True):
            self._answers[sequence] = answer
            self._scheduler.add(sequence)

    def flush(self) -> None:
        """Say that no more requests come soon: a static batch need not fill."""
        self._scheduler.flush()

    def cancel(self, request_ids: Iterable[str]) -> list[Finished]:
        """Stop live requests; each comes back with what it has and reason ``cancelled``."""
        finished = []
        for request_id in request_ids:
            group = self._live.get(request_id)
            for sequence in group.sequences if group else ():
                if sequence.finish_reason is None:
                    finished += self._finish(sequence, "cancelled")
        return finished

    def step(self) -> list[Finished]:
        """Run one batch and return what it finished; the refused requests first."""
        step = self._scheduler.schedule()
        finished = [] if step is None else self._update(step, self._execute(step))
        refused, self._refused = self._refused, []  # kept where the step is interrupted
        return refused + finished

    def _execute(self, step: Step) -> dict[int, SampledToken]:
        try:
            return self.runner.execute(step)
        except BaseException:
            # Ctrl-C as well: blocks that are known as computed may not be.
            self._scheduler.abandon()
            raise

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

    def _check(self, request: Request) -> int:
        """The most tokens the request may come to; raises what makes it impossible."""
        prompt, params = request.prompt, request.params
        limit = self.info.context_length
        if not prompt:
            raise InvalidRequest("The prompt is empty.", param="prompt")
        if len(prompt) >= limit:
            raise PromptTooLong(
                f"The prompt has {len(prompt)} tokens; the context holds {limit}, and at least one "
                "must be left for the answer.",
                param="prompt",
            )
        vocab = self._model.vocab_size
        if min(prompt) < 0 or max(prompt) >= vocab:
            raise InvalidRequest(f"Token ids must be from 0 to {vocab - 1}.", param="prompt")
        for name, ids in (
            ("logit_bias", params.logit_bias),
            ("stop_token_ids", params.stop_token_ids),
        ):
            if any(not 0 <= token_id < vocab for token_id in ids):
                raise InvalidRequest(f"Token ids must be from 0 to {vocab - 1}.", param=name)
        room = limit - len(prompt)
        return len(prompt) + min(params.max_tokens or room, room)

    def _update(self, step: Step, sampled: dict[int, SampledToken]) -> list[Finished]:
        by_slot = self._scheduler.by_slot()
        self._counts["steps"] += 1
        self._counts["output"] += len(sampled)
        finished = []
        for work in step.works:
            sequence = by_slot[work.slot]
            if work.sample:
                reason = self._answers[sequence].push(sampled[work.slot])
                if reason is not None:
                    finished += self._finish(sequence, reason)
        return finished

    def _finish(self, sequence: Sequence, reason: FinishReason) -> list[Finished]:
        sequence.finish_reason = reason
        self._scheduler.finish(sequence)
        if sequence.index == 0:
            self._counts["prompt"] += sequence.num_prompt
            self._counts["cached"] += sequence.num_cached or 0
        group = self._live[sequence.request.id]
        finished = group.add(sequence.index, self._answers.pop(sequence), reason)
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
        warm_blocks=placement.warm_blocks,
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


def _describe(
    name: str, config: EngineConfig, model: ModelConfig, runner: Runner, began: float
) -> EngineInfo:
    placement = runner.placement
    choice = placement.choice
    return EngineInfo(
        model=name,
        context_length=placement.max_model_len,
        vocab_size=model.vocab_size,
        device=str(placement.device),
        dtype=str(choice.dtype).removeprefix("torch."),
        num_blocks=placement.num_blocks,
        block_size=config.block_size,
        max_num_seqs=placement.max_num_seqs,
        max_batch_tokens=placement.max_batch_tokens,
        load_seconds=perf_counter() - began,
        kernels=choice.backend.name,
        quantization=choice.quantization,
        kv_cache_dtype=str(choice.cache_dtype).removeprefix("torch."),
        threads=choice.threads,
        reasons=placement.reasons,
    )
