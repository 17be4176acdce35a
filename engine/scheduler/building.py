"""A step while it is put together."""

import numpy as np

from engine.scheduler.blocks import SequenceBlocks
from engine.scheduler.running import Running
from engine.scheduler.sequence import Sequence
from engine.scheduler.slots import Flags
from engine.scheduler.step import NO_DECODES, UNKNOWN_TOKEN, Admission, Decodes, Ints, Step, Work


class StepBuilder:
    """Books the works of a step, in the order in which they are scheduled.

    To book is to count a sequence's tokens as computed and to take the blocks they need, for which
    there is room.
    """

    def __init__(self, running: Running, blocks: SequenceBlocks) -> None:
        self._running = running
        self._arrays = running.arrays
        self._blocks = blocks
        self._slots: list[Ints] = []
        self._starts: list[Ints] = []
        self._grown: list[int] = []
        self._new_blocks: list[int] = []
        self._num_decodes = 0
        self._others: list[Work] = []

    def __bool__(self) -> bool:
        """Whether there is any work."""
        return bool(self._num_decodes or self._others)

    def book(self, slots: Ints, starts: Ints, counts: Ints, wanted: Ints) -> None:
        """Book running sequences' next tokens.

        For most decodes that is a number to count up. Those that begin or fill a block, and works
        of more tokens, are booked one by one, in their order.

        Args:
            slots: int64 [S].
            starts: int64 [S]; tokens that are computed.
            counts: int64 [S]; more tokens, at least one each.
            wanted: int64 [S]; tokens that each had to compute to sample the next.
        """
        decodes = wanted == 1
        eventful = self._blocks.eventful(slots, starts)
        places = None
        if np.count_nonzero(decodes) < len(slots):
            eventful |= ~decodes
            places = np.cumsum(decodes) - 1
        self._arrays.computed[slots[~eventful]] += 1
        for index in eventful.nonzero()[0].tolist():
            sequence = self._running[slots.item(index)]
            if not decodes[index]:
                self.book_one(sequence, counts.item(index))
                continue
            new = self._blocks.extend(sequence, 1)
            if new:
                place = index if places is None else places.item(index)
                self._grown.append(self._num_decodes + place)
                self._new_blocks += new
        if places is not None:
            slots, starts = slots[decodes], starts[decodes]
        self._slots.append(slots)
        self._starts.append(starts)
        self._num_decodes += len(slots)

    def book_one(self, sequence: Sequence, count: int, admission: Admission | None = None) -> None:
        """Book ``count`` more tokens of a sequence, all of them known."""
        start = sequence.num_computed
        new = self._blocks.extend(sequence, count)
        work = Work(
            slot=sequence.slot,
            start=start,
            token_ids=tuple(sequence.token_ids[start : start + count]),
            new_blocks=tuple(sequence.blocks) if admission else tuple(new),
            sample=start + count == sequence.num_tokens,
            admission=admission,
            scoring=None if sequence.scores is None else sequence.scores.scoring(start, count),
        )
        self._others.append(work)

    def unbooked(self, slots: Ints) -> Flags:
        """Which of these slots are not in the step."""
        others = np.array([work.slot for work in self._others], dtype=np.int64)
        return np.isin(slots, np.concatenate([*self._slots, others]), invert=True)

    def build(self) -> Step:
        """The step: one token first, then longer works, otherwise in the order of their booking."""
        others = tuple(sorted(self._others, key=lambda work: len(work.token_ids) > 1))
        return Step(others, self._decodes() if self._num_decodes else NO_DECODES)

    def _decodes(self) -> Decodes:
        slots, starts = _joined(self._slots), _joined(self._starts)
        unknown = self._arrays.pending[slots] > 0
        return Decodes(
            slots=slots,
            starts=starts,
            token_ids=np.where(unknown, UNKNOWN_TOKEN, self._arrays.last_token[slots]),
            grown=np.array(self._grown, dtype=np.int64),
            new_blocks=np.array(self._new_blocks, dtype=np.int64),
        )


def _joined(arrays: list[Ints]) -> Ints:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
