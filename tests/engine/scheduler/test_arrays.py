"""What the scheduler computes for all sequences at once is what it computes for each of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cache.block_pool import BlockPool
from engine.params import SamplingParams
from engine.requests import Request
from engine.scheduler.admission import Continuous
from engine.scheduler.budget import TokenBudget
from engine.scheduler.promises import Promises
from engine.scheduler.running import Running
from engine.scheduler.scheduler import Limits, Scheduler
from engine.scheduler.sequence import Sequence
from engine.scheduler.step import Step

BLOCK = 4


def sequence(prompt: list[int], max_tokens: int, name: str = "r") -> Sequence:
    request = Request(name, tuple(prompt), SamplingParams(max_tokens=max_tokens))
    return Sequence(request, 0, len(prompt) + max_tokens)


@given(
    wanted=st.lists(st.integers(0, 9), max_size=12),
    tokens=st.integers(0, 40),
    chunked=st.booleans(),
    first=st.booleans(),
)
def test_a_budget_is_dealt_out_to_all_as_to_one_after_the_other(
    wanted: list[int], tokens: int, chunked: bool, first: bool
) -> None:
    budget = TokenBudget(tokens, chunked=chunked)
    expected: list[int] = []
    together = budget.chunks(np.array(wanted, dtype=np.int64), first=first).tolist()
    for count in wanted:
        expected.append(budget.chunk(count, first=first and not any(expected)))
        budget.spend(expected[-1])
    assert together == expected


def test_only_the_first_prompt_may_exceed_the_budget_whole() -> None:
    wanted = np.array([3, 9, 2], dtype=np.int64)
    assert TokenBudget(8, chunked=True).chunks(wanted, first=True).tolist() == [3, 5, 0]
    assert TokenBudget(8, chunked=False).chunks(wanted, first=True).tolist() == [3, 0, 2]
    assert TokenBudget(2, chunked=False).chunks(wanted, first=True).tolist() == [3, 0, 0]
    assert TokenBudget(2, chunked=False).chunks(wanted, first=False).tolist() == [0, 0, 2]


@given(
    lengths=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 900)), min_size=1, max_size=8),
    outputs=st.lists(st.integers(1, 600), max_size=3),
    share=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
)
def test_promises_to_all_are_the_sum_of_those_to_each(
    lengths: list[tuple[int, int]], outputs: list[int], share: float
) -> None:
    promises, running = Promises(share, BLOCK), Running(8)
    for output in outputs:
        promises.ended(output)
    expected = 0
    for length, more in lengths:
        each = sequence([1] * length, more)
        running.enter(each)
        running.arrays.computed[each.slot] = computed = length // 2
        expected += max(0, promises.blocks(each) - -(-computed // BLOCK))
    assert promises.missing(running.arrays, running.order) == expected


def started(*prompts: list[int], max_tokens: int = 8) -> tuple[Scheduler, list[Sequence], Step]:
    scheduler = Scheduler(BlockPool(64, BLOCK), Continuous(8), Limits(8, 64))
    group = [sequence(prompt, max_tokens, str(i)) for i, prompt in enumerate(prompts)]
    for each in group:
        scheduler.add(each)
    step = scheduler.schedule()
    assert step is not None
    return scheduler, group, step


def append(scheduler: Scheduler, step: Step, ids: list[int], ending: list[bool]) -> list[int]:
    """Append a step's tokens; returns the places of those that were left."""
    appended = scheduler.append(step, np.array(ids), np.array(ending))
    assert type(appended.quietly) is int
    assert appended.quietly + len(appended.left) == len(ids)
    return [place for place, _ in appended.left]


def test_tokens_are_appended_but_for_those_that_matter() -> None:
    scheduler, group, step = started([1] * 5, [2] * 3, [3] * 4, max_tokens=2)
    scheduler.check()
    assert append(scheduler, step, [7, 8, 9], [False, True, False]) == [1]
    assert [each.output_ids for each in group] == [[7], [], [9]]
    group[1].token_ids.append(8)
    scheduler.check()
    second = scheduler.schedule()
    assert second is not None
    assert second.decodes.token_ids.tolist() == [7, 8, 9]
    assert second.decodes.starts.tolist() == [5, 3, 4]
    # The second token is the last one of each, so somebody has to end the output.
    assert append(scheduler, second, [4, 5, 6], [False] * 3) == [0, 1, 2]
    assert [each.output_ids for each in group] == [[7], [8], [9]]


def test_a_watched_sequence_gets_none_of_its_tokens_unseen() -> None:
    scheduler = Scheduler(BlockPool(64, BLOCK), Continuous(8), Limits(8, 64))
    plain, watched = sequence([1, 2], 8, "p"), sequence([1, 3], 8, "w")
    watched.watched = True
    scheduler.add(plain)
    scheduler.add(watched)
    step = scheduler.schedule()
    assert step is not None
    appended = scheduler.append(step, np.array([5, 6]), np.array([False, False]))
    assert appended == (1, [(1, watched)])
    assert (plain.output_ids, watched.output_ids) == ([5], [])


def test_tokens_of_a_sequence_that_was_cancelled_are_dropped() -> None:
    scheduler, group, step = started([1] * 5, [2] * 3)
    scheduler.finish(group[0])
    appended = scheduler.append(step, np.array([7, 8]), np.array([True, False]))
    assert appended == (1, [])
    assert [each.output_ids for each in group] == [[], [8]]
    scheduler.check()


def test_steps_are_collected_in_the_order_of_their_launch() -> None:
    scheduler, _, first = started([1] * 5, [2] * 3)
    second = scheduler.schedule()
    assert second is not None
    with pytest.raises(ValueError, match="order"):
        scheduler.append(second, np.array([1, 2]), np.array([False, False]))
    append(scheduler, first, [1, 2], [False, False])
