"""Steps on a device, one in flight while the next one is scheduled."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from engine.executors.device.executor import DeviceExecutor, DeviceStep, Narrowed
from engine.executors.device.packed import Ints, PackedInputs, StepShape, fill_packed
from engine.executors.device.prompt_scores import DevicePromptScores, PendingScores
from engine.executors.device.sizes import padded_sequences, padded_tokens
from engine.executors.device.tables import DeviceTables
from engine.executors.executor import Pending
from engine.executors.inputs import StepInputs
from engine.executors.placement import Placement
from engine.executors.runner import Sampled, SampledTokens
from engine.executors.scored_rows import ScoredRows
from engine.kernels.fused.device import Mark
from engine.kernels.fused.task_maker import TaskMaker
from engine.kernels.fused.tasks import AttentionTasks
from engine.kernels.fused.tensors import StepTensors
from engine.sampling.device_sampler import DeviceSampler
from engine.scheduler.step import Step

# The last layer goes on with the sampled tokens alone where a step has so many tokens to each of
# them: gathering them and dividing their attention is to spare more than it takes.
_FEWEST_TOKENS = 2


class DeviceRunner:
    """See `StepRunner`. Tokens are sampled on the device, and stay there for the next step.

    Args:
        placement: what was chosen.
        executor: the model on its device.
        sampler: draws tokens there.
        tables: the block tables, there and here.
        task_maker: divides the attention of a step.
        overlap: whether a step may be launched before the one ahead of it is collected.

    Attributes:
        placement: see `StepRunner`.
        executor: computes the steps.
        max_in_flight: see `StepRunner`.
    """

    def __init__(
        self,
        placement: Placement,
        executor: DeviceExecutor,
        sampler: DeviceSampler,
        tables: DeviceTables,
        task_maker: TaskMaker,
        *,
        overlap: bool = True,
    ) -> None:
        self.placement = placement
        self.executor = executor
        self.max_in_flight = 1 if overlap else 0
        self._sampler = sampler
        self._tables = tables
        self._most = StepShape(executor.max_tokens, placement.max_num_seqs, placement.max_num_seqs)
        self._inputs = StepInputs(tables, executor.max_tokens)
        self._task_maker = task_maker
        sizes = self._task_maker.sizes
        own = {_narrowed(name): size for name, size in sizes.items() if _narrowed(name) != name}
        self._packed = PackedInputs(executor.device, self._most, sizes, own)
        self._version = Version()
        device = executor.device
        rows = (placement.max_num_seqs,)
        self._tokens = torch.zeros(rows, dtype=torch.int32, device=device.torch_device)
        self._fetched = [device.pinned(rows, torch.int32) for _ in range(2)]
        self._marks: list[Mark] = [device.mark() for _ in range(2)]
        self._side = 0
        self._prompt_scores = DevicePromptScores(device, executor.decoder)

    @property
    def block_size(self) -> int:
        """Tokens in a block of the cache."""
        return self._tables.block_size

    def on_layer(self, call: Callable[[], None]) -> None:
        """See `StepRunner.on_layer`. No step is long, and none waits for what is called."""

    @torch.inference_mode()
    def launch(self, step: Step) -> Pending[Sampled]:
        """See `StepRunner.launch`."""
        with self.executor.device.use():
            return self._launch(step)

    def _launch(self, step: Step) -> "PendingStep":
        side = self._side = 1 - self._side
        # Done long ago, unless the step before the last was given up: then its copies may go on.
        self._marks[side].wait()
        for work in step.others:
            if work.admission is not None:
                self._sampler.admit(work.slot, work.admission)
                self._version.changed()
        self._inputs.fill(step)
        self._tables.send(side)
        self._sampler.upload(side)
        return self._run(side, ScoredRows.of(step, self._inputs))

    @torch.inference_mode()
    def score(self, step: Step) -> Tensor:
        """Run a step, and wait for the logits of all its tokens: float32 [T, vocab], on the host.

        For measuring a model. Nothing may be in flight, and nothing is sampled.
        """
        with self.executor.device.use():
            return self._score(step)

    def _score(self, step: Step) -> Tensor:
        side = self._side
        self._marks[side].wait()
        self._inputs.fill(step)
        self._tables.send(side)
        shape = StepShape(self._inputs.num_tokens, self._inputs.num_sequences, 1)
        fill_packed(self._packed.arrays(side, shape), self._inputs, decodes=False)
        return self.executor.score(self._on_device(side, shape, whole=False))

    def _run(self, side: int, scored: ScoredRows | None) -> "PendingStep":
        inputs = self._inputs
        slots = inputs.slots[inputs.picked]
        whole = inputs.num_tokens == inputs.num_sequences == len(slots)
        shape = self._padded(whole, narrows=scored is None)
        fill_packed(self._packed.arrays(side, shape), inputs, decodes=whole)
        launched = self._on_device(side, shape, whole=whole)
        tensors, tokens = self._packed.tensors(shape), self._tokens[: shape.sampled]
        plain = self._sampler.plain(slots)
        logits = self.executor.decoder.buffers.logits[: shape.sampled]

        def draw() -> None:
            self._sampler.draw(
                logits,
                tensors["sampled_slots"],
                tensors["sampled_positions"],
                tokens,
                plain=plain,
                host_slots=slots,
            )

        if whole:
            self.executor.decode(launched, draw if plain else None)
        else:
            self.executor.prefill(launched)
        device = self.executor.device
        if not (whole and plain):
            device.submit(draw)
        device.copy(tokens, self._fetched[side][: shape.sampled])
        scores = None if scored is None else self._prompt_scores.launch(scored, shape.tokens)
        mark = self._marks[side] = device.mark()
        return PendingStep(self._sampler, mark, self._fetched[side], slots, side, scores)

    def _padded(self, whole: bool, *, narrows: bool) -> StepShape:
        inputs, most = self._inputs, self._most
        sequences = padded_sequences(inputs.num_sequences, most.sequences)
        sampled = padded_sequences(len(inputs.picked), most.sampled)
        if whole:
            return StepShape(sequences, sequences, sequences)
        tokens = inputs.num_tokens
        if tokens <= self.executor.max_recorded_tokens:
            tokens = padded_tokens(tokens, most.tokens)
        return StepShape(tokens, sequences, sampled, narrows and _FEWEST_TOKENS * sampled <= tokens)

    def _on_device(self, side: int, shape: StepShape, *, whole: bool) -> DeviceStep:
        """Divide the attention of a step that is laid out, and send all of it."""
        inputs, arrays = self._inputs, self._packed.arrays(side, shape)
        starts = inputs.query_start[: inputs.num_sequences + 1]
        counts = np.diff(starts)
        sequences = shape.sequences if whole else inputs.num_sequences
        tasks = self._task_maker.make(
            arrays,
            arrays["query_start"][: sequences + 1],
            arrays["contexts"][:sequences],
            arrays["slots"][:sequences],
            inputs.tables.rows,
            num_decodes=sequences if whole else int((counts == 1).sum()),
            version=self._version.of(inputs),
        )
        own = self._divide_narrowed(arrays) if shape.narrowed else None
        self._packed.send(side, shape)
        tensors = self._packed.tensors(shape)
        names = self._task_maker.sizes
        tasks = tasks.on({name: tensors[name] for name in names})
        indices = StepTensors(
            token_ids=tensors["token_ids"],
            positions=tensors["positions"],
            cache_slots=tensors["cache_slots"],
            query_start=tensors["query_start"],
            contexts=tensors["contexts"],
            slots=tensors["slots"],
            block_tables=self._tables.on_device,
        )
        if own is None:
            return DeviceStep(indices, tasks, tensors["sampled_rows"])
        few = replace(
            indices,
            query_start=tensors["narrowed_start"],
            contexts=tensors["sampled_positions"],
            slots=tensors["narrowed_slots"],
        )
        own = own.on({name: tensors[_narrowed(name)] for name in names})
        return DeviceStep(indices, tasks, tensors["sampled_rows"], Narrowed(few, own))

    def _divide_narrowed(self, arrays: dict[str, Ints]) -> AttentionTasks:
        """Divide the attention of the sampled tokens alone, each of which is a decode."""
        return self._task_maker.make(
            {name: arrays[_narrowed(name)] for name in self._task_maker.sizes},
            arrays["narrowed_start"],
            arrays["sampled_positions"],
            arrays["narrowed_slots"],
            self._inputs.tables.rows,
            num_decodes=len(arrays["narrowed_slots"]),
        )


def _narrowed(name: str) -> str:
    """The array that stands for another of `TaskMaker` where a step is narrowed; such a step has no
    tiles of prefills."""
    return name if name == "prefill_tiles" else f"narrowed_{name}"


class Version:
    """Tells steps of the same decodes, whose full blocks are the same, from others."""

    def __init__(self) -> None:
        self._number = 0
        self._slots: Ints = np.zeros(0, dtype=np.int32)

    def of(self, inputs: StepInputs) -> Hashable | None:
        """Equal for steps with equal sequences in equal order; ``None`` where there are prompts.

        Steps of two runners, whose caches differ, are never equal: they may share a `TaskMaker`.
        """
        if inputs.num_tokens > inputs.num_sequences:
            return None
        slots = inputs.slots[: inputs.num_sequences]
        if not np.array_equal(slots, self._slots):
            self._slots = slots.copy()
            self.changed()
        return self, self._number

    def changed(self) -> None:
        """A slot is another sequence's from now on, or a sequence has other blocks."""
        self._number += 1


@dataclass(frozen=True, slots=True)
class PendingStep:
    """A step whose tokens are on their way to the host."""

    sampler: DeviceSampler
    mark: Mark
    fetched: Tensor
    slots: Ints
    side: int
    scores: PendingScores | None

    @torch.inference_mode()
    def collect(self) -> Sampled:
        """See `Pending.collect`."""
        self.mark.wait()
        tokens = self.fetched[: len(self.slots)].numpy().astype(np.int64)
        reports = self.sampler.collect(tokens, self.slots, self.side)
        return SampledTokens(tokens, reports, {} if self.scores is None else self.scores.collect())
