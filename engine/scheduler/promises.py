"""How many blocks are kept free for sequences whose outputs are still to come."""

import numpy as np

from engine.scheduler.sequence import Sequence
from engine.scheduler.slots import SlotArrays
from engine.scheduler.step import Ints

# Tokens that an output is expected to come to before any has finished.
_FIRST_GUESS = 256


class Promises:
    """Blocks for all of a sequence's tokens now and for a share of those to come.

    A request's ``max_tokens`` may be far above what it will take (the whole context where it names
    none), so the share is of twice what outputs took of late, if that is less.

    Args:
        share: of the tokens to come; see `engine.config.EngineConfig.output_reserve`.
        block_size: tokens in a block.
    """

    def __init__(self, share: float, block_size: int) -> None:
        self._share = share
        self._size = block_size
        self._mean_output = _FIRST_GUESS / 2

    def ended(self, num_output: int) -> None:
        """An output ended after so many tokens."""
        self._mean_output += (num_output - self._mean_output) / 32

    def blocks(self, sequence: Sequence) -> int:
        """Blocks that a sequence is likely to need in all, without tokens in flight."""
        expected = sequence.num_tokens
        likely = max(2 * self._mean_output - sequence.num_output, self._size)
        tokens = expected + int(min(self._share * (sequence.max_total - expected), likely))
        return -(-tokens // self._size)

    def missing(self, arrays: SlotArrays, slots: Ints) -> int:
        """Blocks that the sequences of these slots are likely to need beside those they hold."""
        expected = arrays.expected(slots)
        output = expected - arrays.prompt[slots]
        likely = np.maximum(2 * self._mean_output - output, self._size)
        to_come = np.minimum(self._share * (arrays.max_total[slots] - expected), likely)
        tokens = expected + to_come.astype(np.int64)
        missing = -(-tokens // self._size) + -arrays.computed[slots] // self._size
        return int(np.maximum(missing, 0).sum())
