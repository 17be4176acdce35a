"""Which free block is used next, and so which cached one is forgotten first."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Protocol


class EvictionPolicy(Protocol):
    """Keeps the free blocks of a pool, at first all of ``0 … num_blocks - 1``.

    A free block is *cached* if the pool knows its content. Calls come per list of blocks, not per
    block: they are on the way of every step.
    """

    def take(self, count: int) -> list[int]:
        """Choose ``count`` free blocks, which are free no longer. There are as many."""
        ...

    def free(self, cached: Sequence[int], uncached: Sequence[int]) -> None:
        """Blocks became free. The first of ``cached`` is to be taken before the last."""
        ...

    def reclaim(self, block: int) -> None:
        """A cached free block is held again, by a request with the same prefix."""
        ...

    def forget(self) -> None:
        """No free block is cached any more."""
        ...

    def __iter__(self) -> Iterator[int]:
        """The free blocks, in any order; for checks."""
        ...


class LeastRecentlyUsed:
    """Takes blocks that are not cached first, then the cached one that was freed first.

    Args:
        num_blocks: how many blocks there are.
        warm_blocks: so many are used for the first time before a cached one is reused; more only
            where nothing else is free. The first touch of memory costs the system a zeroed page.
            ``None`` is all.
    """

    def __init__(self, num_blocks: int, warm_blocks: int | None = None) -> None:
        self._num_blocks = num_blocks
        self._warm = num_blocks if warm_blocks is None else min(warm_blocks, num_blocks)
        self._used = 0  # blocks from here on were never taken
        self._uncached: list[int] = []
        self._cached: OrderedDict[int, None] = OrderedDict()

    def take(self, count: int) -> list[int]:
        """See `EvictionPolicy.take`."""
        return [self._take() for _ in range(count)]

    def _take(self) -> int:
        if self._uncached:
            return self._uncached.pop()
        if self._used < self._warm or not self._cached:
            self._used += 1
            return self._used - 1
        return self._cached.popitem(last=False)[0]

    def free(self, cached: Sequence[int], uncached: Sequence[int]) -> None:
        """See `EvictionPolicy.free`."""
        self._uncached += uncached
        for block in cached:
            self._cached[block] = None

    def reclaim(self, block: int) -> None:
        """See `EvictionPolicy.reclaim`."""
        del self._cached[block]

    def forget(self) -> None:
        """See `EvictionPolicy.forget`."""
        self._uncached[:0] = reversed(self._cached)
        self._cached.clear()

    def __iter__(self) -> Iterator[int]:
        """See `EvictionPolicy`."""
        yield from self._uncached
        yield from self._cached
        yield from range(self._used, self._num_blocks)
