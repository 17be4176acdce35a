"""The KV cache's blocks: who holds them, what they contain, which may be reused.

Block-level paging follows PagedAttention (Kwon et al., SOSP 2023, section 4). For automatic prefix
caching each full block has a hash, SHA-256 over its tokens and the hash of the block before it, so
that equal hashes mean equal prefixes. The pool holds numbers only, no tensors.
"""

from array import array
from collections.abc import Iterable, Sequence
from hashlib import sha256

from engine.cache.eviction import EvictionPolicy, LeastRecentlyUsed


def hash_blocks(parent: bytes, token_ids: Sequence[int], block_size: int) -> list[bytes]:
    """Hash full blocks one after the other.

    Args:
        parent: the hash of the block before the first one, or `root_hash`.
        token_ids: of all blocks; what does not fill one is left out.
        block_size: tokens in a block.

    Returns:
        SHA-256 over each one's parent's hash and its token ids (32-bit each).
    """
    packed, width = array("i", token_ids).tobytes(), 4 * block_size
    hashes = []
    for end in range(width, len(packed) + 1, width):
        parent = sha256(parent + packed[end - width : end]).digest()
        hashes.append(parent)
    return hashes


def root_hash(salt: str) -> bytes:
    """The parent of a first block; requests with different salts never share a block."""
    return sha256(b"tidemill-prefix\0" + salt.encode()).digest()


class BlockPool:
    """Reference-counted blocks ``0 … num_blocks - 1`` of ``block_size`` tokens each.

    A block is *held* (reference count above zero) or *free*. A free block whose hash is known is
    *cached*: a later request with the same prefix takes it back.

    Args:
        num_blocks: how many there are.
        block_size: tokens of each.
        caching: whether contents are remembered at all.
        eviction: which free blocks are used first; the least recently used where none is given.

    Attributes:
        num_free: blocks that can be allocated now, cached ones included.
    """

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        *,
        caching: bool = True,
        eviction: EvictionPolicy | None = None,
    ) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.num_free = num_blocks
        self._caching = caching
        self._eviction = LeastRecentlyUsed(num_blocks) if eviction is None else eviction
        self._refs = [0] * num_blocks
        self._hashes: list[bytes | None] = [None] * num_blocks
        self._by_hash: dict[bytes, int] = {}

    def match(self, hashes: Iterable[bytes]) -> list[int]:
        """The cached or held blocks of the longest known prefix of ``hashes``; takes nothing."""
        if not self._caching:
            return []
        blocks = []
        for block in map(self._by_hash.get, hashes):
            if block is None:
                break
            blocks.append(block)
        return blocks

    def num_free_among(self, blocks: Iterable[int]) -> int:
        """How many of ``blocks`` are free, and would be free no longer if acquired."""
        return list(map(self._refs.__getitem__, blocks)).count(0)

    def acquire(self, blocks: Iterable[int]) -> None:
        """Take one more reference on each of ``blocks``, as found by `match`."""
        for block in blocks:
            if self._refs[block] == 0:
                self._eviction.reclaim(block)
                self.num_free -= 1
            self._refs[block] += 1

    def allocate(self, count: int) -> list[int]:
        """Take ``count`` blocks of unknown content; what they cached is forgotten.

        Raises:
            IndexError: fewer are free; the caller looks at `num_free` first.
        """
        if count > self.num_free:
            raise IndexError(f"{count} blocks wanted, {self.num_free} free")
        blocks = self._eviction.take(count)
        self.num_free -= count
        for block in blocks:
            self._refs[block] = 1
            if self._hashes[block] is not None:
                self._forget(block)
        return blocks

    def publish(self, block: int, block_hash: bytes) -> None:
        """Say what a held block contains. The first block of a hash stays the known one."""
        if self._caching and block_hash not in self._by_hash:
            self._forget(block)
            self._by_hash[block_hash] = block
            self._hashes[block] = block_hash

    def release(self, blocks: Sequence[int]) -> None:
        """Drop one reference on each of a sequence's blocks, given in the sequence's order.

        They are freed last first, so that of a cached prefix the tail is reused before the head.
        """
        refs, hashes = self._refs, self._hashes
        cached: list[int] = []
        uncached: list[int] = []
        for block in reversed(blocks):
            refs[block] -= 1
            if refs[block] == 0:
                (uncached if hashes[block] is None else cached).append(block)
        self._eviction.free(cached, uncached)
        self.num_free += len(cached) + len(uncached)

    def reset(self) -> None:
        """Forget every cached prefix."""
        for block in range(self.num_blocks):
            self._forget(block)
        self._eviction.forget()

    def _forget(self, block: int) -> None:
        block_hash = self._hashes[block]
        if block_hash is not None:
            del self._by_hash[block_hash]
            self._hashes[block] = None

    def check(self, holders: Iterable[Sequence[int]]) -> None:
        """Raise ``AssertionError`` unless the pool agrees with itself and with its holders.

        Args:
            holders: the block list of every sequence that holds some.
        """
        counted = [0] * self.num_blocks
        for blocks in holders:
            for block in blocks:
                counted[block] += 1
        if counted != self._refs:
            raise AssertionError("reference counts differ from what the sequences hold")
        free = sorted(self._eviction)
        if free != [block for block, refs in enumerate(self._refs) if refs == 0]:
            raise AssertionError("the free blocks are not those without references")
        if len(free) != self.num_free:
            raise AssertionError("the free blocks are miscounted")
        known = {b: found for b, found in enumerate(self._hashes) if found is not None}
        if {found: b for b, found in known.items()} != self._by_hash:
            raise AssertionError("a hash and its block disagree")
