"""Steps that were scheduled and whose tokens are not known yet, and who is part of them."""

from collections import Counter, deque
from collections.abc import Iterable

from engine.scheduler.sequence import Sequence
from engine.scheduler.step import Step, Work

Works = list[tuple[Work, Sequence]]


class StepsInFlight:
    """The steps in flight, oldest first.

    Attributes:
        leaving: sequences that are finished, whose slots and blocks a step in flight still uses.
    """

    def __init__(self) -> None:
        self.leaving: list[Sequence] = []
        self._steps: deque[tuple[Step, Works]] = deque()

    def __len__(self) -> int:
        return len(self._steps)

    def launch(self, works: Works) -> Step:
        """Make a step of these works, in their order."""
        step = Step(tuple([work for work, _ in works]))
        self._steps.append((step, works))
        for work, sequence in works:
            sequence.num_in_flight += 1
            if work.sample:
                sequence.num_pending += 1
        return step

    def collect(self, step: Step) -> Works:
        """Take the oldest step out.

        Raises:
            ValueError: ``step`` is another one.
        """
        if not self._steps or self._steps[0][0] is not step:
            raise ValueError("Steps are collected in the order of their launch.")
        _, works = self._steps.popleft()
        for work, sequence in works:
            sequence.num_in_flight -= 1
            if work.sample:
                sequence.num_pending -= 1
        return works

    def clear(self) -> None:
        """Forget all steps: their tokens will never be known."""
        while self._steps:
            self.collect(self._steps[0][0])

    def check(self, running: Iterable[Sequence], waiting: Iterable[Sequence]) -> None:
        """Raise ``AssertionError`` unless the sequences know which steps they are part of."""
        steps: Counter[Sequence] = Counter()
        pending: Counter[Sequence] = Counter()
        for _, works in self._steps:
            for work, sequence in works:
                steps[sequence] += 1
                pending[sequence] += work.sample
        for sequence in (*running, *waiting, *self.leaving):
            if (sequence.num_in_flight, sequence.num_pending) != (
                steps.pop(sequence, 0),
                pending[sequence],
            ):
                raise AssertionError("a sequence miscounts its steps in flight")
        if steps:
            raise AssertionError("a step in flight is of a sequence that holds nothing")
        if any(not sequence.num_in_flight for sequence in self.leaving):
            raise AssertionError("a sequence should have left with its last step")
