"""The block pool under random use: it never loses, doubles or wrongly shares a block."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.cache.block_pool import BlockPool, hash_blocks, root_hash
from engine.cache.eviction import LeastRecentlyUsed


def chain(*blocks: list[int], salt: str = "") -> list[bytes]:
    hashes = [root_hash(salt)]
    for block in blocks:
        hashes += hash_blocks(hashes[-1], block, len(block))
    return hashes[1:]


def test_a_released_prefix_is_found_again() -> None:
    pool = BlockPool(4, 2)
    hashes = chain([1, 2], [3, 4])
    blocks = pool.allocate(2)
    for block, block_hash in zip(blocks, hashes, strict=True):
        pool.publish(block, block_hash)
    pool.release(blocks)
    assert pool.num_free == 4
    assert pool.match(hashes) == blocks


def test_a_different_salt_or_an_earlier_difference_matches_nothing() -> None:
    pool = BlockPool(4, 2)
    blocks = pool.allocate(2)
    for block, block_hash in zip(blocks, chain([1, 2], [3, 4]), strict=True):
        pool.publish(block, block_hash)
    assert pool.match(chain([1, 2], [3, 4], salt="another tenant")) == []
    assert pool.match(chain([9, 2], [3, 4])) == []
    assert pool.match(chain([1, 2], [3, 9])) == blocks[:1]


def test_the_tail_of_an_old_prefix_is_evicted_before_its_head_and_uncached_blocks_first() -> None:
    pool = BlockPool(3, 2)
    hashes = chain([1, 2], [3, 4])
    blocks = pool.allocate(3)
    for block, block_hash in zip(blocks, hashes, strict=False):
        pool.publish(block, block_hash)
    pool.release(blocks)
    assert pool.allocate(1) == [blocks[2]]
    assert pool.match(hashes) == blocks[:2]
    assert pool.allocate(1) == [blocks[1]]
    assert pool.match(hashes) == blocks[:1]


def test_cached_blocks_are_reused_before_memory_grows_beyond_what_is_warm() -> None:
    pool = BlockPool(6, 2, eviction=LeastRecentlyUsed(6, warm_blocks=3))
    hashes = chain([1, 2], [3, 4], [5, 6])
    blocks = pool.allocate(2)
    for block, block_hash in zip(blocks, hashes, strict=False):
        pool.publish(block, block_hash)
    pool.release(blocks)
    third = pool.allocate(1)
    assert third == [2], "there is room for more, so nothing is forgotten"
    assert pool.match(hashes) == blocks
    assert pool.allocate(1) == [blocks[1]], "now the oldest is"
    assert pool.match(hashes) == blocks[:1]
    assert sorted(pool.allocate(4)) == [0, 3, 4, 5], "what is live may take all"
    assert pool.num_free == 0
    with pytest.raises(IndexError):
        pool.allocate(1)


def test_without_caching_nothing_is_ever_matched() -> None:
    pool = BlockPool(2, 2, caching=False)
    (block,) = pool.allocate(1)
    (block_hash,) = chain([1, 2])
    pool.publish(block, block_hash)
    assert pool.match([block_hash]) == []


def test_asking_for_more_than_is_free_takes_nothing() -> None:
    pool = BlockPool(2, 2)
    with pytest.raises(IndexError):
        pool.allocate(3)
    assert pool.num_free == 2


def test_check_notices_a_lost_and_a_doubled_block() -> None:
    pool = BlockPool(3, 2)
    blocks = pool.allocate(2)
    pool.check([blocks])
    with pytest.raises(AssertionError):
        pool.check([blocks[:1]])
    with pytest.raises(AssertionError):
        pool.check([blocks, blocks])


class Pool(RuleBasedStateMachine):
    """Holders take prefixes from a small world of token blocks, so that they collide often."""

    warm_blocks: int | None = None

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(12, 2, eviction=LeastRecentlyUsed(12, self.warm_blocks))
        self.holders: list[list[int]] = []
        self.contents: dict[int, bytes] = {}

    @rule(path=st.lists(st.integers(0, 2), min_size=1, max_size=5))
    def take(self, path: list[int]) -> None:
        hashes = chain(*([token, token] for token in path))
        shared = self.pool.match(hashes)
        for block, block_hash in zip(shared, hashes, strict=False):
            assert self.contents[block] == block_hash, "a block is known under a hash it has not"
        fresh = len(hashes) - len(shared)
        if fresh > self.pool.num_free - self.pool.num_free_among(shared):
            return
        self.pool.acquire(shared)
        blocks = shared + self.pool.allocate(fresh)
        for block, block_hash in zip(blocks, hashes, strict=True):
            if block not in shared:
                self.contents[block] = block_hash
                self.pool.publish(block, block_hash)
        self.holders.append(blocks)

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.holders) - 1))
        self.pool.release(self.holders.pop(index))

    @invariant()
    def consistent(self) -> None:
        self.pool.check(self.holders)


TestPool = Pool.TestCase
TestPool.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)


class CoolPool(Pool):
    """The same with few warm blocks."""

    warm_blocks = 4


TestCoolPool = CoolPool.TestCase
TestCoolPool.settings = TestPool.settings
