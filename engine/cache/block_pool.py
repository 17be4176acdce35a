"""The KV cache's blocks: who holds them, what they contain, which may be reused.

Block-level paging follows PagedAttention (Kwon et al., SOSP 2023, section 4); automatic prefix
caching names each full block by a SHA-256 chain over its tokens, so that equal names mean equal
prefixes. The pool holds numbers only, no tensors.
"""

from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import sha256


def hash_block(parent: bytes, token_ids: Sequence[int]) -> bytes:
    """Name a full block: SHA-256 over its parent's name and its token ids (32-bit each)."""
    return sha256(parent + array("i", token_ids).tobytes()).digest()


def root_hash(salt: str) -> bytes:
    """The parent of a first block; requests with different salts never share a block."""
    return sha256(b"tidemill-prefix\0" + salt.encode()).digest()


class BlockPool:
    """Reference-counted blocks ``0 … num_blocks - 1`` of ``block_size`` tokens each.

    A block is *held* (reference count above zero) or *free*. A free block that still has a name is
    *cached*: a later request with the same prefix takes it back. Free blocks are reused least
    recently used first, blocks without a name before any cached one.

    Args:
        num_blocks: how many there are.
        block_size: tokens of each.
        caching: whether contents are remembered at all.
        warm_blocks: how many may be used for the first time while cached ones could be reused
            instead; more only where live sequences need them. Memory that is touched for the first
            time costs the system a zeroed page. ``None`` is all.
    """

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        *,
        caching: bool = True,
        warm_blocks: int | None = None,
    ) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._warm = num_blocks if warm_blocks is None else warm_blocks
        self._used = 0  # blocks from here on were never taken
        self._caching = caching
        self._refs = [0] * num_blocks
        self._names: list[bytes | None] = [None] * num_blocks
        self._by_name: dict[bytes, int] = {}
        self._free: OrderedDict[int, None] = OrderedDict()

    @property
    def num_free(self) -> int:
        """Blocks that can be allocated now, cached ones included."""
        return len(self._free) + self.num_blocks - self._used

    def match(self, names: Iterable[bytes]) -> list[int]:
        """The cached or held blocks of the longest known prefix of ``names``; takes nothing."""
        if not self._caching:
            return []
        blocks = []
        for name in names:
            block = self._by_name.get(name)
            if block is None:
                break
            blocks.append(block)
        return blocks

    def num_free_among(self, blocks: Iterable[int]) -> int:
        """How many of ``blocks`` are free, and would leave the free list if acquired."""
        return sum(self._refs[block] == 0 for block in blocks)

    def acquire(self, blocks: Iterable[int]) -> None:
        """Take one more reference on each of ``blocks``, as found by `match`."""
        for block in blocks:
            if self._refs[block] == 0:
                del self._free[block]
            self._refs[block] += 1

    def allocate(self, count: int) -> list[int]:
        """Take ``count`` blocks of unknown content; what they cached is forgotten.

        Raises:
            IndexError: fewer are free; the caller looks at `num_free` first.
        """
        if count > self.num_free:
            raise IndexError(f"{count} blocks wanted, {self.num_free} free")
        blocks = [self._take() for _ in range(count)]
        for block in blocks:
            self._refs[block] = 1
        return blocks

    def _take(self) -> int:
        oldest = next(iter(self._free), None)
        if oldest is None or (self._names[oldest] is not None and self._used < self._warm):
            if self._used < self.num_blocks:
                self._used += 1
                return self._used - 1
            assert oldest is not None, "the caller has counted"
        del self._free[oldest]
        self._forget(oldest)
        return oldest

    def publish(self, block: int, name: bytes) -> None:
        """Say what a held block contains. The first block of a name stays the known one."""
        if self._caching and name not in self._by_name:
            self._forget(block)
            self._by_name[name] = block
            self._names[block] = name

    def release(self, blocks: Sequence[int]) -> None:
        """Drop one reference on each of a sequence's blocks, given in the sequence's order.

        They are freed last first, so that of a cached prefix the tail is reused before the head.
        """
        for block in reversed(blocks):
            self._refs[block] -= 1
            if self._refs[block] == 0:
                self._free[block] = None
                if self._names[block] is None:
                    self._free.move_to_end(block, last=False)

    def reset(self) -> None:
        """Forget every cached prefix."""
        for block in range(self.num_blocks):
            self._forget(block)

    def _forget(self, block: int) -> None:
        name = self._names[block]
        if name is not None:
            del self._by_name[name]
            self._names[block] = None

    def check(self, holders: Iterable[Sequence[int]]) -> None:
        """Raise ``AssertionError`` unless the pool agrees with itself and with its holders.

        Args:
            holders: the block list of every live sequence.
        """
        counted = [0] * self.num_blocks
        for blocks in holders:
            for block in blocks:
                counted[block] += 1
        if counted != self._refs:
            raise AssertionError("reference counts differ from what the sequences hold")
        free = {*self._free, *range(self._used, self.num_blocks)}
        if free != {b for b, refs in enumerate(self._refs) if refs == 0}:
            raise AssertionError("the free list is not the set of blocks without references")
        named = {b: name for b, name in enumerate(self._names) if name is not None}
        if {name: b for b, name in named.items()} != self._by_name:
            raise AssertionError("a name and its block disagree")
