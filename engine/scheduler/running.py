"""Who holds which slot, and the order in which they are scheduled."""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from engine.scheduler.sequence import NO_SLOT, Sequence
from engine.scheduler.slots import Flags, SlotArrays
from engine.scheduler.step import Ints, Step, TokenScores


class Appended(NamedTuple):
    """What became of a step's tokens.

    Attributes:
        quietly: how many were appended, and end nothing.
        left: to the caller: the tokens' places among those of the step, ascending, and whose they
            are.
    """

    quietly: int
    left: list[tuple[int, Sequence]]


class Running:
    """The sequences that hold slots.

    Args:
        size: slots.

    Attributes:
        sequences: those that run, in the order in which they are scheduled. Others hold a slot only
            because a step in flight still uses it.
        arrays: their counts, by slot.
    """

    def __init__(self, size: int) -> None:
        self.sequences: list[Sequence] = []
        self.arrays = SlotArrays(size)
        self._free = list(reversed(range(size)))
        self._by_slot: list[Sequence | None] = [None] * size
        self._token_ids: list[list[int]] = [[] for _ in range(size)]  # of the sequences
        self._order: Ints | None = None
        self._touched: list[Sequence] = []

    def __getitem__(self, slot: int) -> Sequence:
        """Who holds a slot."""
        sequence = self._by_slot[slot]
        assert sequence is not None
        return sequence

    @property
    def order(self) -> Ints:
        """int64; the slots of ``sequences``. The same array until somebody comes or goes."""
        if self._order is None:
            slots = [sequence.slot for sequence in self.sequences]
            self._order = np.array(slots, dtype=np.int64)
        return self._order

    @property
    def num_free(self) -> int:
        """Slots that nobody holds."""
        return len(self._free)

    def enter(self, sequence: Sequence) -> None:
        """Give a sequence a slot; it comes last in the order. Nothing of it is computed yet."""
        arrays, slot = self.arrays, self._free.pop()
        self._by_slot[slot], self._token_ids[slot] = sequence, sequence.token_ids
        sequence.slot, sequence.arrays = slot, arrays
        arrays.known[slot] = len(sequence.token_ids)
        arrays.last_token[slot] = sequence.token_ids[-1]
        arrays.pending[slot] = arrays.in_flight[slot] = 0
        arrays.computed[slot] = arrays.published[slot] = 0
        arrays.prompt[slot] = sequence.num_prompt
        arrays.max_total[slot] = sequence.max_total
        arrays.watched[slot] = sequence.watched
        arrays.left[slot] = False
        self.sequences.append(sequence)
        self._order = None

    def leave(self, sequence: Sequence) -> None:
        """Take a sequence out of the order. It keeps its slot until `free`."""
        self.sequences.remove(sequence)
        self._order = None

    def free(self, sequence: Sequence) -> None:
        """Take a slot back."""
        self._free.append(sequence.slot)
        self._by_slot[sequence.slot], self._token_ids[sequence.slot] = None, []
        sequence.slot, sequence.arrays = NO_SLOT, None

    def append(self, slots: Ints, token_ids: Ints, live: Flags, ending: Flags) -> Appended:
        """Append a token each to sequences, where it cannot matter to anybody else.

        Args:
            slots: int64 [N].
            token_ids: int64 [N].
            live: bool [N]; whose tokens are not dropped.
            ending: bool [N]; whose tokens may end an output.
        """
        arrays = self.arrays
        full = arrays.known[slots] + 1 >= arrays.max_total[slots]
        careful = ending | full | arrays.watched[slots]
        quiet = live & ~careful
        count = int(np.count_nonzero(quiet))
        if count == len(slots):
            self._append(slots, token_ids)
            return Appended(count, [])
        self._append(slots[quiet], token_ids[quiet])
        places = np.flatnonzero(live & careful)
        sequences = [self[slot] for slot in slots[places].tolist()]
        self.touch(sequences)
        return Appended(count, list(zip(places.tolist(), sequences, strict=True)))

    def _append(self, slots: Ints, token_ids: Ints) -> None:
        self.arrays.known[slots] += 1
        self.arrays.last_token[slots] = token_ids
        lists = map(self._token_ids.__getitem__, slots.tolist())
        deque(map(list.append, lists, token_ids.tolist()), maxlen=0)  # a loop without bytecode

    def keep_scores(self, step: Step, scored: Mapping[int, TokenScores]) -> None:
        """Give the sequences what a step told of their prompts, by slot."""
        for work in step.others:
            if work.slot in scored:
                scores = self[work.slot].scores
                assert scores is not None, "they were asked for"
                scores.put(work.start, scored[work.slot])

    def touch(self, sequences: Iterable[Sequence]) -> None:
        """Others may append tokens to these, until `refresh` counts them anew."""
        self._touched += sequences

    def refresh(self) -> None:
        """Count the tokens of the sequences that were touched."""
        for sequence in self._touched:
            if sequence.slot != NO_SLOT:
                self.arrays.known[sequence.slot] = len(sequence.token_ids)
                self.arrays.last_token[sequence.slot] = sequence.token_ids[-1]
        self._touched.clear()

    def check(self, leaving: Iterable[Sequence]) -> None:
        """Raise ``AssertionError`` unless slots, sequences and counts agree.

        Args:
            leaving: who holds a slot without running.
        """
        holders = [*self.sequences, *leaving]
        slots = [sequence.slot for sequence in holders]
        if sorted([*slots, *self._free]) != list(range(len(self._by_slot))):
            raise AssertionError("a slot is lost or held twice")
        if any(self._by_slot[sequence.slot] is not sequence for sequence in holders):
            raise AssertionError("a slot is taken for another sequence's")
        if self.order.tolist() != slots[: len(self.sequences)]:
            raise AssertionError("the order is not that of the sequences")
        for sequence in self.sequences:
            counted = self.arrays.known[sequence.slot], self.arrays.last_token[sequence.slot]
            if counted != (len(sequence.token_ids), sequence.token_ids[-1]):
                raise AssertionError("a sequence's tokens are miscounted")
