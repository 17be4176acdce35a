"""A step while it is put together."""

import numpy as np
from numpy.typing import NDArray

from engine.scheduler.slots import SlotArrays
from engine.scheduler.step import NO_DECODES, UNKNOWN_TOKEN, Decodes, Ints, Step, Work


class StepBuilder:
    """Collects the works of a step in the order in which they are scheduled.

    Args:
        arrays: of the scheduler; holds the decodes' tokens.
    """

    def __init__(self, arrays: SlotArrays) -> None:
        self._arrays = arrays
        self._slots: list[Ints] = []
        self._starts: list[Ints] = []
        self._grown: list[int] = []
        self._new_blocks: list[int] = []
        self._others: list[Work] = []
        self._num_decodes = 0

    def __bool__(self) -> bool:
        """Whether there is any work."""
        return bool(self._num_decodes or self._others)

    def add(self, work: Work) -> None:
        """Take a work that is no decode, or comes after all decodes."""
        self._others.append(work)

    def grow(self, index: int, block: int) -> None:
        """The ``index``-th of the decodes that come next begins a block."""
        self._grown.append(self._num_decodes + index)
        self._new_blocks.append(block)

    def add_decodes(self, slots: Ints, starts: Ints) -> None:
        """Take decodes: their slots, and the positions of their tokens."""
        self._slots.append(slots)
        self._starts.append(starts)
        self._num_decodes += len(slots)

    def unbooked(self, slots: Ints) -> NDArray[np.bool_]:
        """Which of these slots are not in the step."""
        others = np.array([work.slot for work in self._others], dtype=np.int64)
        return np.isin(slots, np.concatenate([*self._slots, others]), invert=True)

    def build(self) -> Step:
        """The step: one token first, then longer works, otherwise in the order they came."""
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
