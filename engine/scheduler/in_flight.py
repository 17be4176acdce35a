"""Steps that were scheduled and whose tokens are not known yet, and who is part of them."""

from collections import Counter, deque
from collections.abc import Iterable

import numpy as np

from engine.scheduler.sequence import Sequence
from engine.scheduler.slots import SlotArrays
from engine.scheduler.step import Step


class StepsInFlight:
    """The steps in flight, oldest first.

    Args:
        arrays: where the sequences' steps and tokens to come are counted.

    Attributes:
        leaving: by slot, sequences that are finished, whose slots and blocks a step in flight still
            uses.
    """

    def __init__(self, arrays: SlotArrays) -> None:
        self.leaving: dict[int, Sequence] = {}
        self._arrays = arrays
        self._steps: deque[Step] = deque()

    def __len__(self) -> int:
        return len(self._steps)

    def launch(self, step: Step) -> None:
        """Count a step. No slot is in it twice."""
        self._steps.append(step)
        self._arrays.in_flight[step.slots] += 1
        self._arrays.pending[step.sampled_slots] += 1

    def collect(self, step: Step) -> list[Sequence]:
        """Take the oldest step out.

        Returns:
            Those that have left with it, in its order.

        Raises:
            ValueError: ``step`` is another one.
        """
        if not self._steps or self._steps[0] is not step:
            raise ValueError("Steps are collected in the order of their launch.")
        self._steps.popleft()
        self._arrays.in_flight[step.slots] -= 1
        self._arrays.pending[step.sampled_slots] -= 1
        if not self.leaving:
            return []
        last = step.slots[self._arrays.in_flight[step.slots] == 0].tolist()
        return [self.leaving.pop(slot) for slot in last if slot in self.leaving]

    def clear(self) -> list[Sequence]:
        """Forget all steps: their tokens will never be known. Returns those that have left."""
        for step in self._steps:
            self._arrays.in_flight[step.slots] -= 1
            self._arrays.pending[step.sampled_slots] -= 1
        self._steps.clear()
        left = list(self.leaving.values())
        self.leaving.clear()
        return left

    def check(self, running: Iterable[Sequence]) -> None:
        """Raise ``AssertionError`` unless the sequences know which steps they are part of."""
        steps: Counter[int] = Counter()
        pending: Counter[int] = Counter()
        for step in self._steps:
            if len(np.unique(step.slots)) != len(step.slots):
                raise AssertionError("a slot is in a step twice")
            steps.update(step.slots.tolist())
            pending.update(step.sampled_slots.tolist())
        arrays = self._arrays
        for sequence in (*running, *self.leaving.values()):
            slot = sequence.slot
            counted = steps.pop(slot, 0), pending[slot]
            if (arrays.in_flight[slot], arrays.pending[slot]) != counted:
                raise AssertionError("a sequence miscounts its steps in flight")
        if steps:
            raise AssertionError("a step in flight is of a sequence that holds nothing")
        if any(not arrays.in_flight[slot] for slot in self.leaving):
            raise AssertionError("a sequence should have left with its last step")
