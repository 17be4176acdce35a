"""The host's division of attention: each row meets each key that it sees exactly once."""

import random
import time
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from engine.kernels.fused.sharing import Sharing
from engine.kernels.fused.task_maker import AttentionShape, TaskMaker
from engine.kernels.fused.tasks import AttentionTasks

Arrays = dict[str, np.ndarray]
EAGER = Sharing(min_keys=8, min_sequences=2, max_rows=64)


class Step:
    """A step on the host, with all that was filled in for it."""

    def __init__(
        self, maker: TaskMaker, new: list[int], contexts: list[int], tables: list[list[int]]
    ):
        self.maker, self.new = maker, new
        self.contexts = np.array(contexts, np.int32)
        self.starts = np.cumsum([0, *new]).astype(np.int32)
        self.slots = np.arange(len(new), dtype=np.int32)[::-1].copy()
        width = max(map(len, tables), default=0) + 1
        self.tables = np.full((max(len(new), 1), width), 10**6, np.int32)
        for slot, row in zip(self.slots, tables, strict=True):
            self.tables[slot, : len(row)] = row
        self.decodes = next((i for i, n in enumerate(new) if n != 1), len(new))
        self.flat = {name: np.full(n, -(10**6), np.int32) for name, n in maker.sizes.items()}

    def make(self, version: object = None) -> AttentionTasks:
        return self.maker.make(
            self.flat, self.starts, self.contexts, self.slots, self.tables, self.decodes, version
        )

    def arrays(self) -> Arrays:
        return {
            name: self.flat[name][: int(np.prod(shape))].reshape(shape)
            for name, shape in self.maker.shapes.items()
        }


def keys_met(step: Step, tasks: AttentionTasks) -> tuple[list[Counter[tuple[int, int]]], list[int]]:
    """For each token the places (block, offset) that it is multiplied with, and its pieces."""
    arrays, size = step.arrays(), step.maker.shape.block_size
    group = step.maker.shape.group
    met: list[Counter[tuple[int, int]]] = [Counter() for _ in range(int(step.starts[-1]))]
    pieces: list[list[int]] = [[] for _ in met]

    def read(token: int, slot: int, first: int, end: int) -> None:
        for key in range(first, end):
            met[token][int(step.tables[slot, key // size]), key % size] += 1

    for slot, first, end, member, count, piece, *_ in arrays["segment_tiles"][
        : tasks.segment_tiles
    ]:
        assert count * group <= tasks.segment_rows
        for token, start in arrays["members"][member : member + count]:
            assert first < end
            read(token, slot, first, end)
            pieces[token].append(start + piece)
    for sequence in range(tasks.num_decodes):
        shared, length = arrays["shared"][sequence], arrays["split_keys"][sequence]
        for split in range(tasks.splits):
            first = shared + split * length
            end = min(first + length, step.contexts[sequence])
            if first < end:
                read(step.starts[sequence], step.slots[sequence], first, end)
                if tasks.splits > 1:
                    own = tasks.own_pieces + sequence * tasks.splits + split
                    pieces[step.starts[sequence]].append(own)
    for sequence, token in arrays["prefill_tiles"][: tasks.prefill_tiles]:
        for t in range(token, min(token + tasks.prefill_rows // group, step.new[sequence])):
            end = step.contexts[sequence] - step.new[sequence] + t + 1
            read(step.starts[sequence] + t, step.slots[sequence], arrays["shared"][sequence], end)
    for sequence, count in enumerate(step.new):
        start, each = arrays["pieces"][sequence]
        for t in range(count):
            folded = [p for p in pieces[step.starts[sequence] + t] if p < tasks.own_pieces]
            assert sorted(folded) == list(range(start + t * each, start + (t + 1) * each))
    return met, [piece for row in pieces for piece in row]


def check(step: Step, tasks: AttentionTasks) -> None:
    met, pieces = keys_met(step, tasks)
    size = step.maker.shape.block_size
    for sequence, (first, end) in enumerate(pairwise(step.starts)):
        row = step.tables[step.slots[sequence]]
        for t in range(first, end):
            seen = step.contexts[sequence] - (end - first) + (t - first) + 1
            places = ((int(row[key // size]), key % size) for key in range(seen))
            assert met[t] == Counter(places), (sequence, t)
    assert len(set(pieces)) == len(pieces), "two rows have one piece"
    assert all(0 <= piece < step.maker.max_pieces for piece in pieces)


def random_step(seed: int, **changes: object) -> Step:
    """Sequences whose tables are walks of a random tree of runs of blocks, in random order."""
    source = random.Random(seed)
    size = source.choice((1, 2, 4, 8))
    group = source.choice((1, 2, 3))
    shape = AttentionShape(
        heads=2 * group, kv_heads=2, block_size=size, multiprocessors=source.choice((1, 8, 40)),
        prefill_rows=(16, 32), segment_rows=(16, 32, 64), max_sequences=24, max_tokens=300,
    )  # fmt: skip
    blocks = iter(source.sample(range(5000), 5000))
    runs: dict[tuple[int, ...], list[int]] = {}
    new, contexts, tables = [], [], []
    decodes, prefills = source.randrange(16), source.randrange(8)
    for index in range(decodes + prefills):
        count = 1 if index < decodes else source.randrange(1, 20)
        path: tuple[int, ...] = ()
        row: list[int] = []
        for _ in range(source.randrange(4)):
            path += (source.randrange(2),)
            length = source.choice((1, 3, -(-8 // size), 40 // size))
            row += runs.setdefault(path, [next(blocks) for _ in range(length)])
        context = max(len(row) * size - source.randrange(3), 0) + count + source.randrange(30)
        if source.random() < 0.1 and index < decodes:
            context = 0
        row += [next(blocks) for _ in range(-(-context // size) - len(row))]
        new.append(count)
        contexts.append(context)
        tables.append(row)
    maker = TaskMaker(shape, EAGER, source.choice((None, 10, 400)))
    return Step(maker, new, contexts, tables)


@pytest.mark.parametrize("seed", range(60))
def test_each_row_meets_each_key_once(seed: int) -> None:
    step = random_step(seed)
    check(step, step.make())


def test_random_steps_have_segments_on_several_levels() -> None:
    most = 0
    for seed in range(60):
        step = random_step(seed)
        step.make()
        most = max(most, int(step.arrays()["pieces"][: len(step.new), 1].max(initial=0)))
    assert most >= 3


def groups_of(count: int, size: int, prefix: int, suffix: int, block: int = 16) -> Step:
    """Decodes in groups with a prefix each, in an order that scatters them."""
    shape = AttentionShape(
        heads=32, kv_heads=8, block_size=block, multiprocessors=132, prefill_rows=(32, 128),
        segment_rows=(32, 64, 128), max_sequences=max(count * size, 1), max_tokens=8192,
    )  # fmt: skip
    blocks = iter(
        np.random.default_rng(0).permutation(count * (prefix + size * suffix) + 1).tolist()
    )
    fronts = [[next(blocks) for _ in range(prefix // block)] for _ in range(count)]
    order = np.random.default_rng(1).permutation(np.repeat(np.arange(count), size))
    tables = [fronts[g] + [next(blocks) for _ in range(suffix // block + 1)] for g in order]
    context = prefix + suffix
    return Step(TaskMaker(shape), [1] * len(order), [context] * len(order), tables)


def test_a_group_of_decodes_is_one_tile_over_its_prefix() -> None:
    step = groups_of(count=64, size=16, prefix=1024, suffix=64)
    tasks = step.make()
    assert (tasks.segment_rows, tasks.splits) == (64, 1)
    assert tasks.segment_tiles == 64
    assert (step.arrays()["shared"] == 1024).all()


@pytest.mark.parametrize(
    ("size", "prefix", "shared"), [(7, 1024, 0), (8, 240, 0), (8, 256, 256), (8, 255, 0)]
)
def test_few_sequences_or_keys_are_not_worth_a_segment(size: int, prefix: int, shared: int) -> None:
    step = groups_of(count=2, size=size, prefix=prefix, suffix=33)
    step.make()
    assert (step.arrays()["shared"] == shared).all()


def test_dividing_a_thousand_decodes_is_quick() -> None:
    step = groups_of(count=64, size=16, prefix=1024, suffix=64)
    step.make()

    def quickest(version: object) -> float:
        times = []
        for _ in range(20):
            start = time.thread_time()
            step.make(version)
            times.append(time.thread_time() - start)
        return min(times)

    assert quickest(None) < 5e-3
    assert quickest("same") < 1e-3


def test_an_equal_version_keeps_what_was_found() -> None:
    step = groups_of(count=2, size=8, prefix=512, suffix=40)
    first = step.make("a")
    before = {name: array.copy() for name, array in step.flat.items()}
    step.tables[:, :32] = np.arange(16 * 32).reshape(16, 32) + 10**5  # nothing is shared any more
    step.contexts += 10
    assert step.make("a").launches == first.launches
    for name in ("shared", "pieces", "segment_tiles", "members"):
        assert (step.flat[name] == before[name]).all()
    assert step.make("b").segment_tiles == 0
    assert (step.arrays()["shared"] == 0).all()


def test_launches_depend_on_the_number_of_decodes_alone() -> None:
    found = set()
    for suffix in (40, 60, 90):
        for groups in (3, 4):
            step = groups_of(count=groups, size=8, prefix=512, suffix=suffix)
            padding = 40 - len(step.new)
            step.contexts = np.append(step.contexts, np.zeros(padding, np.int32))
            step.slots = np.append(step.slots, np.zeros(padding, np.int32))
            step.starts = np.append(step.starts, np.full(padding, step.starts[-1]))
            step.decodes = 40
            step.maker = TaskMaker(groups_of(5, 8, 512, 64).maker.shape)
            step.flat = {name: np.zeros(n, np.int32) for name, n in step.maker.sizes.items()}
            found.add(step.make().launches)
    assert len(found) == 1


@pytest.mark.parametrize(
    ("decodes", "splits"), [(1, 32), (16, 8), (64, 2), (128, 1), (256, 1), (1024, 1)]
)
def test_splits_fill_the_device(decodes: int, splits: int) -> None:
    shape = groups_of(64, 16, 512, 64).maker.shape
    assert TaskMaker(shape).splits(decodes) == splits


def test_long_tiles_of_prefills_come_first() -> None:
    shape = groups_of(1, 8, 512, 64).maker.shape
    step = Step(TaskMaker(shape), [1, 300, 40], [9, 400, 2000], [[1], [2] * 25, [3] * 125])
    tasks = step.make()
    listed = step.arrays()["prefill_tiles"][: tasks.prefill_tiles].tolist()
    assert listed[:3] == [[2, 32], [2, 0], [1, 288]]
    assert len(listed) == 2 + 10


def test_a_window_is_divided_apart_from_shared_keys() -> None:
    shape = AttentionShape(
        heads=4, kv_heads=1, block_size=16, multiprocessors=16, prefill_rows=(16,),
        segment_rows=(16,), max_sequences=8, max_tokens=64, window=1000,
    )  # fmt: skip
    step = Step(TaskMaker(shape), [1, 1], [5000, 90], [list(range(313)), list(range(400, 406))])
    tasks = step.make()
    assert tasks.splits == 32
    lengths = step.arrays()["window_split_keys"][:2]
    assert (lengths % 128 == 0).all()
    assert lengths[0] * tasks.splits >= 1000 + 127
    assert lengths.tolist() == [128, 128]
    assert step.arrays()["split_keys"][:2].tolist() == [256, 128]
