"""What sequences hold of the block pool: taking, publishing and giving back."""

from collections.abc import Iterable

from engine.cache.block_pool import BlockPool
from engine.scheduler.sequence import Sequence


class SequenceBlocks:
    """Keeps ``blocks``, ``num_computed`` and ``num_published`` of sequences in step with a pool."""

    def __init__(self, pool: BlockPool) -> None:
        self._pool = pool
        self._size = pool.block_size

    def missing(self, sequence: Sequence, count: int) -> int:
        """Blocks that must be allocated for ``count`` more tokens."""
        return -(-(sequence.num_computed + count) // self._size) - len(sequence.blocks)

    def shared(self, sequence: Sequence) -> list[int]:
        """Known blocks of the sequence's prefix; at least one token is left to compute."""
        usable = sequence.num_tokens - 1
        sequence.extend_hashes(self._size, sequence.num_tokens)
        return self._pool.match(sequence.block_hashes[: usable // self._size])

    def start(self, sequence: Sequence, shared: list[int]) -> None:
        """Begin with blocks that `shared` has found, whose tokens are computed."""
        self._pool.acquire(shared)
        sequence.blocks = list(shared)
        sequence.num_published = len(shared)
        sequence.num_computed = len(shared) * self._size
        if sequence.num_cached is None:
            sequence.num_cached = min(sequence.num_computed, sequence.num_prompt)

    def extend(self, sequence: Sequence, count: int) -> list[int]:
        """Count ``count`` more tokens as computed; returns the blocks allocated for them."""
        new = self._pool.allocate(max(0, self.missing(sequence, count)))
        sequence.blocks.extend(new)
        sequence.num_computed += count
        self._publish(sequence)
        return new

    def release(self, sequence: Sequence) -> None:
        """Give all blocks back. What is known of them stays cached."""
        self._publish(sequence)
        self._pool.release(sequence.blocks)
        sequence.blocks = []
        sequence.num_published = 0

    def _publish(self, sequence: Sequence) -> None:
        """Tell the prefix cache of full blocks that are computed and whose tokens are known."""
        size = self._size
        full = min(sequence.num_computed, sequence.num_tokens) // size
        if full == sequence.num_published:
            return
        sequence.extend_hashes(size, full * size)
        for index in range(sequence.num_published, full):
            self._pool.publish(sequence.blocks[index], sequence.block_hashes[index])
        sequence.num_published = full

    def check(self, holders: Iterable[Sequence]) -> None:
        """Raise ``AssertionError`` unless the pool agrees, and nobody holds more than needed."""
        sequences = list(holders)
        self._pool.check(sequence.blocks for sequence in sequences)
        for sequence in sequences:
            held = len(sequence.blocks) * self._size
            if not sequence.num_computed <= held < sequence.num_computed + self._size:
                raise AssertionError("a sequence holds too few blocks, or more than it needs")
