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
from dataclasses import dataclass

from engine.cache.block_pool import BlockPool
from engine.scheduler.admission import AdmissionPolicy
from engine.scheduler.blocks import SequenceBlocks
from engine.scheduler.in_flight import StepsInFlight, Works
from engine.scheduler.sequence import NO_SLOT, Sequence
from engine.scheduler.step import UNKNOWN_TOKEN, Admission, Step, Work

# Tokens that an output is expected to come to before any has finished.
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
        self._blocks = SequenceBlocks(pool)
        self._policy = policy
        self._limits = limits
        self._in_flight = StepsInFlight()
        self._slots = list(reversed(range(limits.max_num_seqs)))
        self._flushed = False
        # From a preemption until blocks are given back, so that there is no thrashing.
        self._admission_paused = False
        self._mean_output = _FIRST_GUESS / 2

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence behind those that wait."""
        self._flushed = False
        self.waiting.append(sequence)

    def flush(self) -> None:
        """Let static and dynamic batching start with what waits now."""
        self._flushed = True

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
        works: Works = []
        budget = self._continue_running(works)
        if budget is not None:
            self._admit(works, budget)
        if not works:
            return None
        works.sort(key=lambda item: len(item[0].token_ids) > 1)
        return self._in_flight.launch(works)

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
        sampled: dict[int, Sequence] = {}
        for work, sequence in self._in_flight.collect(step):
            if not sequence.left:
                if work.sample:
                    sampled[work.slot] = sequence
            elif sequence.num_in_flight == 0:
                self._in_flight.leaving.remove(sequence)
                self._give_back(sequence)
        return sampled

    def finish(self, sequence: Sequence) -> None:
        """Take a sequence out, wherever it is. What it holds comes back with its last step."""
        self._mean_output += (sequence.num_output - self._mean_output) / 32
        sequence.left = True
        if sequence.slot == NO_SLOT:
            self.waiting.remove(sequence)
            return
        self.running.remove(sequence)
        if sequence.num_in_flight:
            self._in_flight.leaving.append(sequence)
        else:
            self._give_back(sequence)

    def abandon(self) -> None:
        """A step failed: nothing in the cache can be relied on any more.

        All steps in flight are given up, every running sequence goes back to the queue, and every
        cached prefix is forgotten.
        """
        self._in_flight.clear()
        for sequence in self._in_flight.leaving:
            self._give_back(sequence)
        self._in_flight.leaving.clear()
        for sequence in reversed(list(self.running)):
            self._preempt(sequence)
        self.pool.reset()

    # -- running sequences ---------------------------------------------------------------------

    def _continue_running(self, works: Works) -> int | None:
        """Book the running sequences' next tokens.

        Returns:
            What is left of the step's tokens; `None` where a sequence has to wait for blocks until
            a step in flight is collected.
        """
        budget = self._limits.max_batch_tokens
        scheduled: set[int] = set()
        for sequence in list(self.running):
            if sequence.slot == NO_SLOT:  # preempted for an earlier one
                continue
            expected = sequence.num_expected
            if expected >= sequence.max_total:  # complete with the tokens to come
                continue
            count = self._chunk(expected - sequence.num_computed, budget, bool(works))
            if count == 0:
                continue
            if not self._make_room(sequence, count, scheduled):
                if sequence.slot == NO_SLOT:
                    continue
                return None
            works.append((self._work(sequence, count), sequence))
            scheduled.add(sequence.slot)
            budget -= count
        return budget

    def _chunk(self, wanted: int, budget: int, others: bool) -> int:
        """How many of the wanted tokens fit the budget; whole prompts only where not chunked."""
        if self._limits.chunked_prefill or wanted <= budget:
            return min(wanted, max(budget, 0))
        return 0 if others else wanted

    def _make_room(self, sequence: Sequence, count: int, scheduled: set[int]) -> bool:
        """Free enough blocks for ``count`` more tokens, at the cost of the least computed.

        Returns:
            Whether there are enough. If not, the sequence itself was preempted, or it keeps its
            slot and waits: for blocks of sequences that leave, or since all others are in flight.
        """
        while self._blocks.missing(sequence, count) > self.pool.num_free:
            victims = [s for s in self.running if s.slot not in scheduled and not s.num_in_flight]
            if self._in_flight.leaving or not victims:
                return False
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
        self._admission_paused = bool(self.running)

    def _give_back(self, sequence: Sequence) -> None:
        self._blocks.release(sequence)
        self._slots.append(sequence.slot)
        sequence.slot = NO_SLOT
        self._admission_paused = False

    # -- waiting sequences ---------------------------------------------------------------------

    def _admit(self, works: Works, budget: int) -> None:
        if self._admission_paused:
            return
        quota = self._policy.quota(
            waiting=len(self.waiting), running=len(self.running), flushed=self._flushed
        )
        places = min(quota, len(self._slots))
        promised = sum(self._promise(sequence) for sequence in self.running) if places else 0
        for _ in range(places):
            sequence = self.waiting[0]
            shared = self._blocks.shared(sequence)
            cached = len(shared) * self.pool.block_size
            count = self._chunk(sequence.num_tokens - cached, budget, bool(works))
            if count == 0:
                return
            need = self._promise(sequence) - len(shared)
            room = self.pool.num_free - self.pool.num_free_among(shared) - promised
            # Alone, a sequence may always try: the pool holds at least one whole context.
            if need > room and (self.running or self._in_flight.leaving):
                return
            works.append((self._start(sequence, shared, count), sequence))
            promised += self._promise(sequence)
            budget -= count

    def _start(self, sequence: Sequence, shared: list[int], count: int) -> Work:
        self.waiting.popleft()
        self._blocks.start(sequence, shared)
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

    def _promise(self, sequence: Sequence) -> int:
        """Blocks kept free for a sequence: all of its tokens now and a share of those to come.

        A request's ``max_tokens`` may be far above what it will take (the whole context where it
        names none), so the share is of twice what outputs took of late, if that is less.
        """
        expected = sequence.num_expected
        room = sequence.max_total - expected
        output = expected - sequence.num_prompt
        likely = max(2 * self._mean_output - output, self.pool.block_size)
        tokens = expected + int(min(self._limits.output_reserve * room, likely))
        return max(0, -(-tokens // self.pool.block_size) - len(sequence.blocks))

    def _work(self, sequence: Sequence, count: int, admission: Admission | None = None) -> Work:
        """Book ``count`` more tokens of a running sequence, for which there is room."""
        start, end = sequence.num_computed, sequence.num_computed + count
        new = self._blocks.extend(sequence, count)
        token_ids = tuple(sequence.token_ids[start:end])
        if len(token_ids) < count:
            token_ids += (UNKNOWN_TOKEN,) * (count - len(token_ids))
        return Work(
            slot=sequence.slot,
            start=start,
            token_ids=token_ids,
            new_blocks=tuple(sequence.blocks) if admission else tuple(new),
            sample=end == sequence.num_expected,
            admission=admission,
        )

    def check(self) -> None:
        """Raise ``AssertionError`` unless pool, slots, queues and steps agree with each other."""
        holders = [*self.running, *self._in_flight.leaving]
        self._blocks.check(holders)
        slots = [sequence.slot for sequence in holders]
        if sorted([*slots, *self._slots]) != list(range(self._limits.max_num_seqs)):
            raise AssertionError("a slot is lost or held twice")
        if any(sequence.blocks or sequence.slot != NO_SLOT for sequence in self.waiting):
            raise AssertionError("a waiting sequence holds something")
        self._in_flight.check(self.running, self.waiting)
