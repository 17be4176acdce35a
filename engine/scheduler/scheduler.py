"""Which tokens are computed next. Imports no torch, so it can be tested by the thousand.

One step is one flattened batch under one token budget: every running sequence's next token, and
chunks of prompts beside them (chunked prefill, Sarathi-Serve, Agrawal et al., OSDI 2024).

Steps run on the device in the order in which they were scheduled, and a step may be scheduled while
earlier ones are in flight, their tokens not known yet:

- A sequence's next token may then be `UNKNOWN_TOKEN`. No sequence is scheduled past its
  ``max_total``, counting the tokens to come.
- A sequence that is part of a step in flight is not preempted. If it finishes, its slot and blocks
  come back when the last of its steps is collected, and what that samples for it is dropped.
- A full block is published to the prefix cache as soon as its computation is scheduled and all its
  tokens are known. The runner writes all of a layer's keys and values before it reads any, so a
  sequence may share a block that another one fills in the same step. Hence a sequence is not
  preempted in the step that it is part of.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from engine.cache.block_pool import BlockPool
from engine.scheduler.admission import AdmissionPolicy
from engine.scheduler.blocks import SequenceBlocks
from engine.scheduler.budget import TokenBudget
from engine.scheduler.building import StepBuilder
from engine.scheduler.in_flight import StepsInFlight
from engine.scheduler.promises import Promises
from engine.scheduler.running import Appended, Running
from engine.scheduler.sequence import NO_SLOT, Sequence
from engine.scheduler.slots import Flags
from engine.scheduler.step import Admission, Ints, Step, TokenScores


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a step; see `engine.config.EngineConfig` for their meaning."""

    max_num_seqs: int
    max_batch_tokens: int
    chunked_prefill: bool = True
    output_reserve: float = 0.5


class Scheduler:
    """Holds every live sequence, waiting or running, and the pool of blocks."""

    def __init__(self, pool: BlockPool, policy: AdmissionPolicy, limits: Limits) -> None:
        self.pool = pool
        self.waiting: deque[Sequence] = deque()
        self.preemptions = 0
        self._running = Running(limits.max_num_seqs)
        self._arrays = self._running.arrays
        self._blocks = SequenceBlocks(pool, self._arrays)
        self._promises = Promises(limits.output_reserve, pool.block_size)
        self._policy = policy
        self._limits = limits
        self._in_flight = StepsInFlight(self._arrays)
        self._flushed = False
        # From a preemption until blocks are given back, so that there is no thrashing.
        self._admission_paused = False

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence behind those that wait."""
        self._flushed = False
        self.waiting.append(sequence)

    def flush(self) -> None:
        """Let static and dynamic batching start with what waits now."""
        self._flushed = True

    @property
    def running(self) -> list[Sequence]:
        """The running sequences, in the order in which they are scheduled."""
        return self._running.sequences

    @property
    def has_unfinished(self) -> bool:
        """Whether any sequence waits or runs."""
        return bool(self.waiting or self.running)

    @property
    def has_work(self) -> bool:
        """Whether any sequence waits or runs, or a step is to be collected."""
        return bool(self.waiting or self.running or self._in_flight)

    def schedule(self) -> Step | None:
        """Choose the next batch, which is in flight then; `None` where nothing can run now."""
        self._running.refresh()
        builder = StepBuilder(self._running, self._blocks)
        limits = self._limits
        budget = TokenBudget(limits.max_batch_tokens, chunked=limits.chunked_prefill)
        if self._continue_running(builder, budget):
            self._admit(builder, budget)
        if not builder:
            return None
        step = builder.build()
        self._in_flight.launch(step)
        return step

    def keep_scores(self, step: Step, scored: Mapping[int, TokenScores]) -> None:
        """Take what a step told of prompts, by slot; called before its tokens are taken."""
        self._running.keep_scores(step, scored)

    def collected(self, step: Step) -> dict[int, Sequence]:
        """The oldest step in flight is done, and its tokens are known.

        The caller appends each sampled sequence's tokens, one or more, to its ``token_ids``, and
        calls `finish` for those that end. A runner that samples several tokens for a sequence keeps
        no steps in flight. Only the tokens of the step's works count as computed, so the next step
        computes all new ones of the sequence, like a chunk of a prompt.

        Returns:
            By slot, in the step's order, the sequences that the step sampled a token for, without
            those that have finished since.

        Raises:
            ValueError: ``step`` is not the oldest one in flight.
        """
        slots = step.sampled_slots
        sampled = {slot: self._running[slot] for slot in slots[self._collect(step)].tolist()}
        self._running.touch(sampled.values())
        return sampled

    def append(self, step: Step, token_ids: Ints, ending: Flags) -> Appended:
        """As `collected`, where the step sampled one token for each sequence.

        Most tokens end nothing and nobody waits for them: they are appended here. The others are
        left to the caller, who does with them as after `collected`: those of sequences that are
        watched, of those that come to their ``max_total``, and those that may end an output.

        Args:
            step: the oldest one in flight.
            token_ids: int64 [N], in the order of ``step.sampled_slots``.
            ending: bool [N]; the tokens that may end an output.

        Raises:
            ValueError: ``step`` is not the oldest one in flight.
        """
        live = self._collect(step)
        return self._running.append(step.sampled_slots, token_ids, live, ending)

    def _collect(self, step: Step) -> Flags:
        """Take a step out; returns which of its sampled sequences have not finished since."""
        left = self._in_flight.collect(step)
        live = ~self._arrays.left[step.sampled_slots]
        for sequence in left:
            self._give_back(sequence)
        return live

    def finish(self, sequence: Sequence) -> None:
        """Take a sequence out, wherever it is. What it holds comes back with its last step."""
        self._promises.ended(sequence.num_output)
        if sequence.slot == NO_SLOT:
            self.waiting.remove(sequence)
            return
        self._running.leave(sequence)
        if self._arrays.in_flight[sequence.slot]:
            self._arrays.left[sequence.slot] = True
            self._in_flight.leaving[sequence.slot] = sequence
        else:
            self._give_back(sequence)

    def abandon(self) -> None:
        """A step failed: nothing in the cache can be relied on any more.

        All steps in flight are given up, every running sequence goes back to the queue, and every
        cached prefix is forgotten.
        """
        for sequence in self._in_flight.clear():
            self._give_back(sequence)
        for sequence in reversed(list(self.running)):
            self._preempt(sequence)
        self.pool.reset()

    # -- running sequences ---------------------------------------------------------------------

    def _continue_running(self, builder: StepBuilder, budget: TokenBudget) -> bool:
        """Book the running sequences' next tokens, as many sequences at once as there is room for.

        Returns:
            Whether all were; otherwise one has to wait for blocks until a step in flight is
            collected.
        """
        arrays, slots = self._arrays, self._running.order
        while len(slots):
            expected, starts = arrays.expected(slots), arrays.computed[slots]
            # None where complete with the tokens to come.
            wanted = (expected - starts) * (expected < arrays.max_total[slots])
            counts = budget.chunks(wanted, first=not builder)
            total = int(counts.sum())
            fitting = len(slots)
            if total // self.pool.block_size + fitting > self.pool.num_free:  # more than are needed
                needed = np.cumsum(self._blocks.missing(starts, counts))
                fitting = int(np.searchsorted(needed, self.pool.num_free, side="right"))
                total = int(counts[:fitting].sum())
            if np.count_nonzero(counts[:fitting]) == len(slots):
                builder.book(slots, starts, counts, wanted)
            else:
                taken = np.flatnonzero(counts[:fitting])
                builder.book(slots[taken], starts[taken], counts[taken], wanted[taken])
            budget.spend(total)
            if fitting == len(slots):
                break
            sequence = self._running[slots[fitting]]
            room = self._make_room(sequence, int(counts[fitting]), builder)
            if not room and sequence.slot != NO_SLOT:
                return False
            slots = slots[fitting:]
            slots = slots[np.isin(slots, self._running.order)]  # without the preempted
        return True

    def _make_room(self, sequence: Sequence, count: int, builder: StepBuilder) -> bool:
        """Free enough blocks for ``count`` more tokens, at the cost of the least computed.

        Returns:
            Whether there are enough. If not, the sequence itself was preempted, or it keeps its
            slot and waits: for blocks of sequences that leave, or since all others are in flight.
        """
        arrays = self._arrays
        held = len(sequence.blocks) * self.pool.block_size
        missing = -(-(sequence.num_computed + count - held) // self.pool.block_size)
        while missing > self.pool.num_free:
            order = self._running.order
            idle = order[(arrays.in_flight[order] == 0) & builder.unbooked(order)]
            if self._in_flight.leaving or not len(idle):
                return False
            _, slot = min(zip(arrays.computed[idle].tolist(), (-idle).tolist(), strict=True))
            victim = self._running[-slot]
            self._preempt(victim)
            if victim is sequence:
                return False
        return True

    def _preempt(self, sequence: Sequence) -> None:
        """Drop a sequence's blocks; it comes back first, and computes them again."""
        self._running.leave(sequence)
        self._give_back(sequence)
        self.waiting.appendleft(sequence)
        self._policy.returned()
        self.preemptions += 1
        self._admission_paused = bool(self.running)

    def _give_back(self, sequence: Sequence) -> None:
        self._blocks.release(sequence)
        self._running.free(sequence)
        self._admission_paused = False

    # -- waiting sequences ---------------------------------------------------------------------

    def _admit(self, builder: StepBuilder, budget: TokenBudget) -> None:
        if self._admission_paused:
            return
        quota = self._policy.quota(
            waiting=len(self.waiting), running=len(self.running), flushed=self._flushed
        )
        places = min(quota, self._running.num_free)
        if places <= 0:
            return
        promised = self._promises.missing(self._arrays, self._running.order)
        for _ in range(places):
            sequence = self.waiting[0]
            shared = self._blocks.shared(sequence)
            cached = len(shared) * self.pool.block_size
            count = budget.chunk(sequence.num_tokens - cached, first=not builder)
            if count == 0:
                return
            likely = self._promises.blocks(sequence)
            room = self.pool.num_free - self.pool.num_free_among(shared) - promised
            # Alone, a sequence may always try: the pool holds at least one whole context.
            if likely - len(shared) > room and (self.running or self._in_flight.leaving):
                return
            builder.book_one(sequence, count, self._start(sequence, shared))
            promised += max(0, likely - len(sequence.blocks))
            budget.spend(count)

    def _start(self, sequence: Sequence, shared: list[int]) -> Admission:
        self.waiting.popleft()
        self._running.enter(sequence)
        self._blocks.start(sequence, shared)
        self._policy.admitted()
        return Admission(
            params=sequence.request.params,
            index=sequence.index,
            prompt=sequence.request.prompt,
            output_ids=tuple(sequence.output_ids),
        )

    def check(self) -> None:
        """Raise ``AssertionError`` unless pool, slots, queues and steps agree with each other."""
        self._running.refresh()
        leaving = self._in_flight.leaving.values()
        self._running.check(leaving)
        self._blocks.check([*self.running, *leaving])
        if any(sequence.blocks or sequence.slot != NO_SLOT for sequence in self.waiting):
            raise AssertionError("a waiting sequence holds something")
        self._in_flight.check(self.running)
