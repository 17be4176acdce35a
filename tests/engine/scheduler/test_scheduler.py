"""The scheduler with a made-up model: any mix of requests ends, and no step breaks a rule.

The stand-in for the runner checks what a real one relies on: that a sequence's keys are computed in
order and exactly once per stay, and that a shared block really holds the tokens it is taken for.
"""

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cache.block_pool import BlockPool
from engine.params import SamplingParams
from engine.requests import Request
from engine.scheduler.admission import Continuous, Static
from engine.scheduler.scheduler import Limits, Scheduler
from engine.scheduler.sequence import Sequence
from engine.scheduler.step import Step

BLOCK = 4


class FakeRunner:
    """Keeps what each cache slot holds, as the tokens from the sequence's start up to there."""

    def __init__(self, scheduler: Scheduler, max_batch_tokens: int, chunked: bool) -> None:
        self.scheduler = scheduler
        self.max_batch_tokens = max_batch_tokens
        self.chunked = chunked
        self.tables: dict[int, list[int]] = defaultdict(list)
        self.content: dict[tuple[int, int], tuple[int, ...]] = {}
        self.computed = 0

    def execute(self, step: Step) -> None:
        assert step.works, "an empty step"
        if self.chunked:
            assert step.num_tokens <= self.max_batch_tokens
        assert len({work.slot for work in step.works}) == len(step.works)
        lengths = [len(work.token_ids) for work in step.works]
        singles = sum(length == 1 for length in lengths)
        assert all(length == 1 for length in lengths[:singles]), "decodes come first"
        by_slot = {sequence.slot: sequence for sequence in self.scheduler.running}
        for work in step.works:  # every key of the step is written …
            if work.admission is not None:
                self.tables[work.slot] = []
            self.tables[work.slot].extend(work.new_blocks)
            tokens = by_slot[work.slot].token_ids
            assert list(work.token_ids) == tokens[work.start : work.start + len(work.token_ids)]
            for position in range(work.start, work.start + len(work.token_ids)):
                place = (self.tables[work.slot][position // BLOCK], position % BLOCK)
                self.content[place] = tuple(tokens[: position + 1])
            self.computed += len(work.token_ids)
        for work in step.works:  # … before any is read
            tokens = by_slot[work.slot].token_ids
            for position in range(work.start + len(work.token_ids)):
                place = (self.tables[work.slot][position // BLOCK], position % BLOCK)
                assert self.content[place] == tuple(tokens[: position + 1]), "a foreign key"


def drive(
    scheduler: Scheduler, runner: FakeRunner, arrivals: list[list[Sequence]], limit: int = 5_000
) -> list[Sequence]:
    """Run to the end; the next token of a sequence is made from its length and its prompt."""
    finished: list[Sequence] = []
    for step_number in range(limit):
        if step_number < len(arrivals):
            for sequence in arrivals[step_number]:
                scheduler.add(sequence)
        if step_number >= len(arrivals):
            scheduler.flush()
            if not scheduler.has_work:
                return finished
        step = scheduler.schedule()
        scheduler.check()
        if step is None:
            continue
        runner.execute(step)
        for sequence in scheduler.collected(step).values():
            sequence.token_ids.append((sequence.num_tokens + sequence.token_ids[0]) % 3)
            if sequence.num_tokens >= sequence.max_total:
                scheduler.finish(sequence)
                finished.append(sequence)
        scheduler.check()
    raise AssertionError(f"not done after {limit} steps: {len(finished)} finished")


def sequence(prompt: list[int], max_tokens: int, name: str = "r") -> Sequence:
    request = Request(name, tuple(prompt), SamplingParams(max_tokens=max_tokens))
    return Sequence(request, 0, len(prompt) + max_tokens)


def make(
    num_blocks: int,
    *,
    max_num_seqs: int = 8,
    budget: int = 16,
    caching: bool = True,
    chunked: bool = True,
    reserve: float = 0.5,
    policy: str = "continuous",
) -> tuple[Scheduler, FakeRunner]:
    chosen = Continuous(max_num_seqs) if policy == "continuous" else Static(max_num_seqs)
    limits = Limits(max_num_seqs, budget, chunked, reserve)
    scheduler = Scheduler(BlockPool(num_blocks, BLOCK, caching=caching), chosen, limits)
    return scheduler, FakeRunner(scheduler, budget, chunked)


prompts = st.lists(st.integers(0, 2), min_size=1, max_size=24)
arrivals_of = st.lists(
    st.lists(st.tuples(prompts, st.integers(1, 16)), max_size=4), min_size=1, max_size=12
)


@given(
    arrivals=arrivals_of,
    spare=st.integers(0, 20),
    budget=st.integers(8, 40),
    caching=st.booleans(),
    chunked=st.booleans(),
    reserve=st.sampled_from([0.0, 0.5, 1.0]),
    policy=st.sampled_from(["continuous", "static"]),
)
@settings(max_examples=300, deadline=None)
def test_any_mix_of_requests_ends_and_every_key_is_right(
    arrivals: list[list[tuple[list[int], int]]],
    spare: int,
    budget: int,
    caching: bool,
    chunked: bool,
    reserve: float,
    policy: str,
) -> None:
    # The pool holds one longest sequence (40 tokens) and a little more, so it is often short.
    scheduler, runner = make(
        10 + spare,
        budget=budget,
        caching=caching,
        chunked=chunked,
        reserve=reserve,
        policy=policy,
    )
    batches = [[sequence(prompt, n) for prompt, n in batch] for batch in arrivals]
    finished = drive(scheduler, runner, batches)
    assert len(finished) == sum(map(len, batches))
    assert all(s.num_output == s.request.params.max_tokens for s in finished)
    assert scheduler.pool.num_free == 10 + spare


def test_a_shared_prefix_is_computed_once_even_within_one_step() -> None:
    scheduler, runner = make(64, max_num_seqs=8, budget=100)
    prefix = list(range(16))
    group = [sequence([*prefix, 20 + i], 1, f"r{i}") for i in range(8)]
    drive(scheduler, runner, [group])
    assert [s.num_cached for s in group] == [0] + [16] * 7
    assert runner.computed == 17 + 7


def test_a_prompt_larger_than_the_budget_is_chunked_beside_decodes() -> None:
    scheduler, runner = make(64, budget=8)
    short, long = sequence([1], 10), sequence(list(range(30)), 1)
    scheduler.add(short)
    first = scheduler.schedule()
    assert first is not None
    runner.execute(first)
    assert list(scheduler.collected(first).values()) == [short]
    short.token_ids.append(7)
    scheduler.add(long)
    step = scheduler.schedule()
    assert step is not None
    assert [len(work.token_ids) for work in step.works] == [1, 7]
    assert [work.sample for work in step.works] == [True, False]


def test_without_chunking_a_prompt_is_computed_whole() -> None:
    scheduler, _ = make(64, budget=8, chunked=False)
    long = sequence(list(range(30)), 1)
    scheduler.add(long)
    step = scheduler.schedule()
    assert step is not None
    assert step.num_tokens == 30


def test_static_batching_admits_nobody_until_the_batch_is_done() -> None:
    scheduler, runner = make(64, max_num_seqs=2, policy="static")
    first = [sequence([1, 2], 1, "a"), sequence([1, 2], 6, "b")]
    second = [sequence([1, 2], 1, "c"), sequence([1, 2], 1, "d")]
    finished = drive(scheduler, runner, [first, second])
    assert [s.request.id for s in finished] == ["a", "b", "c", "d"]
    scheduler.add(sequence([1], 1, "e"))
    assert scheduler.schedule() is None, "half a batch waits for more"
    scheduler.flush()
    assert scheduler.schedule() is not None


def test_dynamic_batching_waits_for_its_time_out_only() -> None:
    now = 0.0
    policy = Static(4, timeout=0.5, clock=lambda: now)
    assert policy.quota(waiting=1, running=0, flushed=False) == 0
    now = 0.4
    assert policy.quota(waiting=2, running=0, flushed=False) == 0
    now = 0.5
    assert policy.quota(waiting=2, running=0, flushed=False) == 2


def test_memory_pressure_preempts_the_least_computed_and_loses_nothing() -> None:
    scheduler, runner = make(12, max_num_seqs=4, budget=64, reserve=0.0, caching=False)
    group = [sequence([i] * 8, 24, f"r{i}") for i in range(4)]
    finished = drive(scheduler, runner, [group])
    assert scheduler.preemptions > 0
    assert {s.request.id for s in finished} == {"r0", "r1", "r2", "r3"}
    # Each preemption costs one recomputation; thrashing would cost many times the work.
    assert runner.computed < 3 * sum(s.num_tokens for s in group)


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1)])
def test_the_least_computed_makes_room_whatever_its_place(order: tuple[int, ...]) -> None:
    scheduler, _ = make(8, budget=64, reserve=0.0, caching=False)
    group = [sequence([i] * length, 3) for i, length in enumerate((8, 13, 5))]  # all eight blocks
    for place in order:
        scheduler.add(group[place])
    step = scheduler.schedule()
    assert step is not None
    for each in scheduler.collected(step).values():
        each.token_ids.append(2)
    assert scheduler.schedule() is not None, "the first sequence needs another block"
    assert [each.num_computed for each in group] == [9, 14, 0]


def test_a_cancelled_sequence_gives_everything_back() -> None:
    scheduler, _ = make(16)
    running, waiting = sequence([1] * 8, 8, "x"), sequence([2] * 4, 4, "y")
    scheduler.add(running)
    step = scheduler.schedule()
    assert step is not None
    scheduler.collected(step)
    scheduler.add(waiting)
    scheduler.finish(running)
    scheduler.finish(waiting)
    scheduler.check()
    assert scheduler.pool.num_free == 16
    assert not scheduler.has_work


def test_a_preempted_member_of_a_static_batch_comes_back_without_a_flush() -> None:
    scheduler, runner = make(
        12, max_num_seqs=4, budget=64, reserve=0.0, caching=False, policy="static"
    )
    for i in range(4):
        scheduler.add(sequence([i] * 8, 24, f"r{i}"))
    for _ in range(500):
        step = scheduler.schedule()
        if step is None:
            break
        runner.execute(step)
        for sampled in scheduler.collected(step).values():
            sampled.token_ids.append(1)
            if sampled.num_tokens >= sampled.max_total:
                scheduler.finish(sampled)
    assert scheduler.preemptions > 0
    assert not scheduler.has_work


def test_a_batch_that_was_cancelled_leaves_no_open_places() -> None:
    now = 0.0
    policy = Static(4, timeout=0.5, clock=lambda: now)
    assert policy.quota(waiting=4, running=0, flushed=False) == 4
    assert policy.quota(waiting=0, running=0, flushed=False) == 0
    assert policy.quota(waiting=1, running=0, flushed=False) == 0


def test_requests_that_name_no_limit_do_not_reserve_the_whole_context() -> None:
    limits = Limits(max_num_seqs=64, max_batch_tokens=100_000)
    scheduler = Scheduler(BlockPool(2_000, 16), Continuous(64), limits)
    for i in range(64):
        request = Request(f"r{i}", tuple([i + 10] * 100), SamplingParams(max_tokens=None))
        scheduler.add(Sequence(request, 0, 131_072))
    step = scheduler.schedule()
    assert step is not None
    assert len(step.works) == 64


def test_after_a_step_that_failed_nothing_of_it_is_found_in_the_cache() -> None:
    scheduler, runner = make(16, budget=64)
    first = sequence([1] * 9, 2, "a")
    scheduler.add(first)
    assert scheduler.schedule() is not None  # and never executed
    scheduler.abandon()
    scheduler.check()
    assert drive(scheduler, runner, [[sequence([1] * 9, 2, "b")]])
    assert first.num_output == 2


@pytest.mark.parametrize("blocks", [10, 11])
def test_a_lone_request_may_fill_the_whole_pool(blocks: int) -> None:
    scheduler, runner = make(blocks, budget=64, reserve=1.0)
    lone = sequence([1] * 20, 20)
    assert drive(scheduler, runner, [[lone]]) == [lone]
