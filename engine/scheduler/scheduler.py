"""Which tokens are computed next. Imports no torch, so it can be tested by the thousand.

One step is one flattened batch under one token budget: every running sequence's next token, and
chunks of prompts beside them (chunked prefill, Sarathi-Serve, Agrawal et al., OSDI 2024).

A full block is published to the prefix cache when its computation is *scheduled*, not when it is
done: the runner writes all of a layer's keys and values before it reads any, so a sequence may
share a block that another one fills in the same step. Hence a sequence that is part of a step is
never preempted in that step.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from engine.cache.block_pool import BlockPool
from engine.scheduler.policy import AdmissionPolicy
from engine.scheduler.sequence import NO_SLOT, Sequence
from engine.scheduler.step import Admission, Step, Work

# What an answer is taken to come to, in tokens, before any has ended.
_FIRST_GUESS = 256


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
        self.running: list[Sequence] = []
        self.preemptions = 0
        self._policy = policy
        self._limits = limits
        self._slots = list(reversed(range(limits.max_num_seqs)))
        self._flushed = False
        # After a preemption nothing is admitted until memory was given back: no thrashing.
        self._holding = False
        self._mean_output = _FIRST_GUESS / 2

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence behind those that wait."""
        self._flushed = False
        self.waiting.append(sequence)

    def flush(self) -> None:
        """Let static and dynamic batching start with what waits now."""
        self._flushed = True

    @property
    def has_work(self) -> bool:
        """Whether anything waits or runs."""
        return bool(self.waiting or self.running)

    def schedule(self) -> Step | None:
        """Choose the next batch; `None` where nothing can run now."""
        works: list[Work] = []
        budget = self._continue_running(works, self._limits.max_batch_tokens)
        self._admit(works, budget)
        if not works:
            return None
        works.sort(key=lambda work: len(work.token_ids) > 1)
        return Step(tuple(works))

    def finish(self, sequence: Sequence) -> None:
        """Take a sequence out, wherever it is, and give back what it holds."""
        self._mean_output += (sequence.num_output - self._mean_output) / 32
        if sequence.slot == NO_SLOT:
            self.waiting.remove(sequence)
        else:
            self.running.remove(sequence)
            self._give_back(sequence)
            self._holding = False

    def abandon(self) -> None:
        """A step was not executed to its end: nothing in the cache can be relied on any more.

        Every running sequence goes back to the queue, and every cached prefix is forgotten.
        """
        for sequence in reversed(list(self.running)):
            self._preempt(sequence)
        self.pool.reset()

    def by_slot(self) -> dict[int, Sequence]:
        """The running sequences by their slots."""
        return {sequence.slot: sequence for sequence in self.running}

    # -- running sequences ---------------------------------------------------------------------

    def _continue_running(self, works: list[Work], budget: int) -> int:
        scheduled: set[int] = set()
        for sequence in list(self.running):
            if sequence.slot == NO_SLOT:  # preempted for an earlier one
                continue
            count = self._chunk(sequence.num_tokens - sequence.num_computed, budget, bool(works))
            if count == 0:
                continue
            if not self._make_room(sequence, count, scheduled):
                continue
            works.append(self._work(sequence, count))
            scheduled.add(sequence.slot)
            budget -= count
        return budget

    def _chunk(self, wanted: int, budget: int, others: bool) -> int:
        """How many of the wanted tokens fit the budget; whole prompts only where not chunked."""
        if self._limits.chunked_prefill or wanted <= budget:
            return min(wanted, max(budget, 0))
        return 0 if others else wanted

    def _make_room(self, sequence: Sequence, count: int, scheduled: set[int]) -> bool:
        """Free enough blocks for ``count`` more tokens, at the cost of the least computed."""
        while self._missing_blocks(sequence, count) > self.pool.num_free:
            victims = [s for s in self.running if s.slot not in scheduled]
            victim = min(victims, key=lambda s: (s.num_computed, -s.slot))
            self._preempt(victim)
            if victim is sequence:
                return False
        return True

    def _preempt(self, sequence: Sequence) -> None:
        """Drop a sequence's blocks; it comes back first, and computes them again."""
        self.running.remove(sequence)
        self._give_back(sequence)
        sequence.num_computed = 0
        self.waiting.appendleft(sequence)
        self._policy.returned()
        self.preemptions += 1
        self._holding = bool(self.running)

    def _give_back(self, sequence: Sequence) -> None:
        self.pool.release(sequence.blocks)
        sequence.blocks = []
        self._slots.append(sequence.slot)
        sequence.slot = NO_SLOT

    # -- waiting sequences ---------------------------------------------------------------------

    def _admit(self, works: list[Work], budget: int) -> None:
        if self._holding:
            return
        quota = self._policy.quota(
            waiting=len(self.waiting), running=len(self.running), flushed=self._flushed
        )
        places = min(quota, len(self._slots))
        promised = sum(self._promise(sequence) for sequence in self.running) if places else 0
        for _ in range(places):
            sequence = self.waiting[0]
            shared = self._shared_blocks(sequence)
            cached = len(shared) * self.pool.block_size
            count = self._chunk(sequence.num_tokens - cached, budget, bool(works))
            if count == 0:
                return
            need = self._promise(sequence) - len(shared)
            room = self.pool.num_free - self.pool.num_free_among(shared) - promised
            # Alone, a sequence may always try: the pool holds at least one whole context.
            if need > room and self.running:
                return
            works.append(self._start(sequence, shared, count))
            promised += self._promise(sequence)
            budget -= count

    def _shared_blocks(self, sequence: Sequence) -> list[int]:
        """Known blocks of the sequence's prefix; at least one token is left to compute."""
        usable = sequence.num_tokens - 1
        sequence.extend_names(self.pool.block_size, sequence.num_tokens)
        return self.pool.match(sequence.names[: usable // self.pool.block_size])

    def _start(self, sequence: Sequence, shared: list[int], count: int) -> Work:
        self.waiting.popleft()
        self.pool.acquire(shared)
        sequence.blocks = list(shared)
        sequence.num_computed = len(shared) * self.pool.block_size
        if sequence.num_cached is None:
            sequence.num_cached = min(sequence.num_computed, sequence.num_prompt)
        sequence.slot = self._slots.pop()
        self.running.append(sequence)
        self._policy.admitted()
        admission = Admission(
            params=sequence.request.params,
            index=sequence.index,
            prompt=sequence.request.prompt,
            output_ids=tuple(sequence.output_ids),
        )
        return self._work(sequence, count, admission)

    # -- blocks --------------------------------------------------------------------------------

    def _missing_blocks(self, sequence: Sequence, count: int) -> int:
        tokens = sequence.num_computed + count
        return -(-tokens // self.pool.block_size) - len(sequence.blocks)

    def _promise(self, sequence: Sequence) -> int:
        """Blocks kept free for a sequence: all of its tokens now and a share of those to come.

        A request's ``max_tokens`` may be far above what it will take (the whole context where it
        names none), so the share is of twice what answers took of late, if that is less.
        """
        room = sequence.max_total - sequence.num_tokens
        likely = max(2 * self._mean_output - sequence.num_output, self.pool.block_size)
        tokens = sequence.num_tokens + int(min(self._limits.output_reserve * room, likely))
        return max(0, -(-tokens // self.pool.block_size) - len(sequence.blocks))

    def _work(self, sequence: Sequence, count: int, admission: Admission | None = None) -> Work:
        """Book ``count`` more tokens of a running sequence, for which there is room."""
        start, end = sequence.num_computed, sequence.num_computed + count
        new = self.pool.allocate(max(0, self._missing_blocks(sequence, count)))
        sequence.blocks.extend(new)
        sequence.num_computed = end
        self._publish(sequence, start, end)
        return Work(
            slot=sequence.slot,
            start=start,
            token_ids=tuple(sequence.token_ids[start:end]),
            new_blocks=tuple(sequence.blocks) if admission else tuple(new),
            sample=end == sequence.num_tokens,
            admission=admission,
        )

    def _publish(self, sequence: Sequence, start: int, end: int) -> None:
        size = self.pool.block_size
        if start // size == end // size:
            return
        sequence.extend_names(size, end)
        for index in range(start // size, end // size):
            self.pool.publish(sequence.blocks[index], sequence.names[index])

    def check(self) -> None:
        """Raise ``AssertionError`` unless pool, slots and queues agree with each other."""
        self.pool.check(sequence.blocks for sequence in self.running)
        slots = [sequence.slot for sequence in self.running]
        if sorted([*slots, *self._slots]) != list(range(self._limits.max_num_seqs)):
            raise AssertionError("a slot is lost or held twice")
        if any(sequence.blocks or sequence.slot != NO_SLOT for sequence in self.waiting):
            raise AssertionError("a waiting sequence holds something")
        self._check_capacity(self.running)

    def _check_capacity(self, sequences: Iterable[Sequence]) -> None:
        for sequence in sequences:
            held = len(sequence.blocks) * self.pool.block_size
            if not sequence.num_computed <= held < sequence.num_computed + self.pool.block_size:
                raise AssertionError("a sequence holds too few blocks, or more than it needs")
