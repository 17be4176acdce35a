"""What sequences hold of the block pool: taking, publishing and giving back."""

from collections.abc import Iterable

import numpy as np

from engine.cache.block_pool import BlockPool
from engine.scheduler.sequence import Sequence
from engine.scheduler.slots import Flags, SlotArrays
from engine.scheduler.step import Ints


class SequenceBlocks:
    """Keeps ``blocks`` of sequences, and what is computed and published, in step with a pool.

    A sequence that holds a slot holds exactly the blocks that its computed tokens fill or begin.
    """

    def __init__(self, pool: BlockPool, arrays: SlotArrays) -> None:
        self._pool = pool
        self._size = pool.block_size
        self._arrays = arrays

    def missing(self, starts: Ints, counts: Ints) -> Ints:
        """int64 [S]; blocks to be allocated for ``counts`` more tokens after ``starts``."""
        size = self._size
        missing: Ints = -(-(starts + counts) // size) + -starts // size
        return missing

    def eventful(self, slots: Ints, starts: Ints) -> Flags:
        """Which of these begin a block with one more token, or have one to publish then."""
        size, arrays = self._size, self._arrays
        full = np.minimum(starts + 1, arrays.known[slots]) // size
        eventful: Flags = (starts % size == 0) | (full != arrays.published[slots])
        return eventful

    def shared(self, sequence: Sequence) -> list[int]:
        """Known blocks of the sequence's prefix; at least one token is left to compute.

        The cache has no log-probabilities: where they are wanted and not known, nothing is shared.
        """
        usable = sequence.num_tokens - 1
        if sequence.scores is not None and not sequence.scores.complete:
            usable = sequence.scores.known
        sequence.extend_hashes(self._size, sequence.num_tokens)
        return self._pool.match(sequence.block_hashes[: usable // self._size])

    def start(self, sequence: Sequence, shared: list[int]) -> None:
        """Begin with blocks that `shared` has found, whose tokens are computed."""
        self._pool.acquire(shared)
        sequence.blocks = list(shared)
        computed = len(shared) * self._size
        self._arrays.published[sequence.slot] = len(shared)
        self._arrays.computed[sequence.slot] = computed
        if sequence.num_cached is None:
            sequence.num_cached = min(computed, sequence.num_prompt)

    def extend(self, sequence: Sequence, count: int) -> list[int]:
        """Count ``count`` more tokens as computed; returns the blocks allocated for them."""
        computed = self._arrays.computed.item(sequence.slot) + count
        missing = -(-computed // self._size) - len(sequence.blocks)
        new = self._pool.allocate(missing) if missing else []
        sequence.blocks += new
        self._arrays.computed[sequence.slot] = computed
        self._publish(sequence, computed)
        return new

    def release(self, sequence: Sequence) -> None:
        """Give all blocks back. What is known of them stays cached."""
        self._publish(sequence, sequence.num_computed)
        self._pool.release(sequence.blocks)
        sequence.blocks = []

    def _publish(self, sequence: Sequence, computed: int) -> None:
        """Tell the prefix cache of full blocks that are computed and whose tokens are known."""
        size = self._size
        full = min(computed, sequence.num_tokens) // size
        published = self._arrays.published.item(sequence.slot)
        if full == published:
            return
        sequence.extend_hashes(size, full * size)
        for index in range(published, full):
            self._pool.publish(sequence.blocks[index], sequence.block_hashes[index])
        self._arrays.published[sequence.slot] = full

    def check(self, holders: Iterable[Sequence]) -> None:
        """Raise ``AssertionError`` unless the pool agrees, and nobody holds more than needed."""
        sequences = list(holders)
        self._pool.check(sequence.blocks for sequence in sequences)
        for sequence in sequences:
            if len(sequence.blocks) != -(-sequence.num_computed // self._size):
                raise AssertionError("a sequence holds too few blocks, or more than it needs")
