"""The block pool under random use: it never loses, doubles or wrongly shares a block."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.cache.block_pool import BlockPool, hash_block, root_hash


def chain(*blocks: list[int], salt: str = "") -> list[bytes]:
    names = [root_hash(salt)]
    for block in blocks:
        names.append(hash_block(names[-1], block))
    return names[1:]


def test_a_released_prefix_is_found_again() -> None:
    pool = BlockPool(4, 2)
    names = chain([1, 2], [3, 4])
    blocks = pool.allocate(2)
    for block, name in zip(blocks, names, strict=True):
        pool.publish(block, name)
    pool.release(blocks)
    assert pool.num_free == 4
    assert pool.match(names) == blocks


def test_a_different_salt_or_an_earlier_difference_matches_nothing() -> None:
    pool = BlockPool(4, 2)
    blocks = pool.allocate(2)
    for block, name in zip(blocks, chain([1, 2], [3, 4]), strict=True):
        pool.publish(block, name)
    assert pool.match(chain([1, 2], [3, 4], salt="another tenant")) == []
    assert pool.match(chain([9, 2], [3, 4])) == []
    assert pool.match(chain([1, 2], [3, 9])) == blocks[:1]


def test_the_tail_of_an_old_prefix_is_evicted_before_its_head_and_uncached_blocks_first() -> None:
    pool = BlockPool(3, 2)
    names = chain([1, 2], [3, 4])
    blocks = pool.allocate(3)
    for block, name in zip(blocks, names, strict=False):
        pool.publish(block, name)
    pool.release(blocks)
    assert pool.allocate(1) == [blocks[2]]
    assert pool.match(names) == blocks[:2]
    assert pool.allocate(1) == [blocks[1]]
    assert pool.match(names) == blocks[:1]


def test_cached_blocks_are_reused_before_memory_grows_beyond_what_is_warm() -> None:
    pool = BlockPool(6, 2, warm_blocks=3)
    names = chain([1, 2], [3, 4], [5, 6])
    blocks = pool.allocate(2)
    for block, name in zip(blocks, names, strict=False):
        pool.publish(block, name)
    pool.release(blocks)
    third = pool.allocate(1)
    assert third == [2], "there is room for more, so nothing is forgotten"
    assert pool.match(names) == blocks
    assert pool.allocate(1) == [blocks[1]], "now the oldest is"
    assert pool.match(names) == blocks[:1]
    assert sorted(pool.allocate(4)) == [0, 3, 4, 5], "what is live may take all"
    assert pool.num_free == 0
    with pytest.raises(IndexError):
        pool.allocate(1)


def test_without_caching_nothing_is_ever_matched() -> None:
    pool = BlockPool(2, 2, caching=False)
    (block,) = pool.allocate(1)
    (name,) = chain([1, 2])
    pool.publish(block, name)
    assert pool.match([name]) == []


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
        self.pool = BlockPool(12, 2, warm_blocks=self.warm_blocks)
        self.holders: list[list[int]] = []
        self.contents: dict[int, bytes] = {}

    @rule(path=st.lists(st.integers(0, 2), min_size=1, max_size=5))
    def take(self, path: list[int]) -> None:
        names = chain(*([token, token] for token in path))
        shared = self.pool.match(names)
        for block, name in zip(shared, names, strict=False):
            assert self.contents[block] == name, "a block is known under a name it has not"
        fresh = len(names) - len(shared)
        if fresh > self.pool.num_free - self.pool.num_free_among(shared):
            return
        self.pool.acquire(shared)
        blocks = shared + self.pool.allocate(fresh)
        for block, name in zip(blocks, names, strict=True):
            if block not in shared:
                self.contents[block] = name
                self.pool.publish(block, name)
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
