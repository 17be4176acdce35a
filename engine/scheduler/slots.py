"""What changes with every step about the sequences that hold slots: arrays by slot.

A step of a thousand decodes changes a few of these arrays by a few vector operations; a `Sequence`
is touched only where something happens to it: a block begins or is full, an output may end.
"""

import numpy as np
from numpy.typing import NDArray

from engine.scheduler.step import Ints

Flags = NDArray[np.bool_]


class SlotArrays:
    """Counts of tokens and steps. An entry means something while a sequence holds its slot.

    Args:
        size: slots.

    Attributes:
        known: int64; known tokens of prompt and output.
        pending: int64; tokens that steps in flight sample, at most one each.
        in_flight: int64; steps in flight that the sequence is part of.
        computed: int64; tokens from the start whose keys and values are in the sequence's blocks,
            or will be once the steps in flight are done. It may count tokens not known yet.
        published: int64; blocks from the start that the prefix cache was told of.
        prompt: int64; tokens of the prompt.
        max_total: int64; most tokens that prompt and output may come to.
        last_token: int64; the last known token.
        watched: whether somebody wants to see every token of the output as it comes.
        left: whether the sequence is finished, and only steps in flight still use its slot.
    """

    def __init__(self, size: int) -> None:
        self.known: Ints = np.zeros(size, dtype=np.int64)
        self.pending: Ints = np.zeros(size, dtype=np.int64)
        self.in_flight: Ints = np.zeros(size, dtype=np.int64)
        self.computed: Ints = np.zeros(size, dtype=np.int64)
        self.published: Ints = np.zeros(size, dtype=np.int64)
        self.prompt: Ints = np.zeros(size, dtype=np.int64)
        self.max_total: Ints = np.zeros(size, dtype=np.int64)
        self.last_token: Ints = np.zeros(size, dtype=np.int64)
        self.watched: Flags = np.zeros(size, dtype=np.bool_)
        self.left: Flags = np.zeros(size, dtype=np.bool_)

    def expected(self, slots: Ints) -> Ints:
        """int64 [S]; known tokens, and those that steps in flight sample."""
        return self.known[slots] + self.pending[slots]
