"""Rates learned from what finished chunks took."""

import math
from collections.abc import Sequence
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.estimates.engine_time import shares
from storage.estimates.rates import Measured, Rates, fitted, learned
from storage.estimates.roofline import Size, gpu, roofline
from storage.estimates.work import PlannedWork, Room, Work, expected_work

BOUND = Rates(prompt=1e-4, output=1e-4, step=1e-2)
factors = st.tuples(*[st.floats(0.3, 3.0)] * 3)
works = st.builds(
    Work,
    prompt_tokens=st.floats(100, 50_000),
    output_tokens=st.floats(10, 50_000),
    steps=st.floats(5, 2_000),
)
many = st.lists(works, min_size=9, max_size=20)


def true_rates(of_bound: tuple[float, float, float], scale: float = 1.0) -> Rates:
    prompt, output, step = (factor * scale for factor in of_bound)
    return Rates(BOUND.prompt * prompt, BOUND.output * output, BOUND.step * step)


def measured(rates: Rates, amounts: Sequence[Work]) -> list[Measured]:
    return [Measured(work, rates.seconds(work)) for work in amounts]


def off(rates: Rates, truth: Rates, amounts: Sequence[Work]) -> float:
    """The mean error over some work, as a logarithm."""
    return fmean(abs(math.log(rates.seconds(work) / truth.seconds(work))) for work in amounts)


@settings(max_examples=40)
@given(many, factors, st.floats(0.01, 100))
def test_what_was_measured_is_told_again(
    amounts: list[Work], of_bound: tuple[float, float, float], scale: float
) -> None:
    truth = true_rates(of_bound, scale)
    found = learned(measured(truth, amounts), BOUND)
    assert off(found, truth, amounts) < 0.12
    assert found.runs == len(amounts)


@settings(max_examples=40)
@given(many, factors, st.sampled_from([1 / 40, 40.0]), st.data())
def test_one_that_is_far_off_does_not_count(
    amounts: list[Work], of_bound: tuple[float, float, float], wrong: float, data: st.DataObject
) -> None:
    truth = true_rates(of_bound)
    seen = measured(truth, amounts)
    place = data.draw(st.integers(0, len(seen) - 1))
    seen[place] = Measured(seen[place].work, seen[place].seconds * wrong)
    assert off(learned(seen, BOUND), truth, amounts) < 0.3


@settings(max_examples=40)
@given(st.lists(st.builds(Measured, works, st.floats(0.001, 1e5)), max_size=12), works, works)
def test_more_work_never_takes_less(seen: list[Measured], work: Work, more: Work) -> None:
    rates = learned(seen, BOUND)
    both = Work(*(a + b for a, b in zip(work.parts, more.parts, strict=True)))
    assert 0 < rates.seconds(work) < rates.seconds(both)
    assert rates.spread > 0


def test_a_single_measurement_scales_the_roofline() -> None:
    work = Work(1_000, 2_000, 100)
    (one,) = measured(BOUND.times(7), [work])
    found = learned([one], BOUND)
    assert found.seconds(work) == pytest.approx(one.seconds, rel=0.01)
    assert found.prompt == pytest.approx(7 * BOUND.prompt, rel=0.05)
    assert found.spread >= 0.25


def test_without_measurements_the_roofline_stands() -> None:
    assert learned([], BOUND) is BOUND
    assert learned([Measured(Work(0, 0, 0), 1.0), Measured(Work(1, 1, 1), 0.0)], BOUND) is BOUND


def test_like_work_tells_what_no_rate_holds() -> None:
    sample = Measured(Work(1_000, 1_000, 100), 4 * BOUND.seconds(Work(1_000, 1_000, 100)))
    long = Measured(sample.work, sample.seconds * 1e3)
    assert fitted(BOUND, [long]).seconds(long.work) == pytest.approx(long.seconds, rel=0.01)
    # Of a sample of a few seconds some is chance.
    assert 1.5 < fitted(BOUND, [sample]).step / BOUND.step < 4.0
    assert fitted(BOUND, []) is BOUND


@given(st.lists(st.integers(0, 400), max_size=12), st.integers(1, 200))
def test_an_engines_time_is_shared_out_whole(pending: list[int], room: int) -> None:
    found = shares(pending, room)
    assert len(found) == len(pending)
    assert sum(found) == pytest.approx(1.0 if any(pending) else 0.0)
    for count, share in zip(pending, found, strict=True):
        assert 0 <= share <= 1
        assert share == 0 or count > 0


def test_who_does_not_run_yet_takes_nothing() -> None:
    assert shares([128, 64], 128) == [1.0, 0.0]
    assert shares([32, 96, 5], 64) == [0.5, 0.5, 0.0]


@pytest.mark.parametrize(
    ("outputs", "mean", "longest", "steps"),
    [
        (10, 20.0, 50.0, 50.0),  # all begin at once: the longest is the last
        (1_000, 20.0, 20.0, 200.0),  # of which a hundred run at once
        (1_000, 20.0, 50.0, 230.0),
        (0, 20.0, 50.0, 0.0),
    ],
)
def test_steps_follow_from_how_many_outputs_run_at_once(
    outputs: int, mean: float, longest: float, steps: float
) -> None:
    planned = PlannedWork(lines=outputs, distinct_lines=outputs, outputs=outputs)
    work = expected_work(planned, mean, longest, Room(100, 1_000))
    assert work.steps == pytest.approx(steps)
    assert work.output_tokens == mean * outputs


def test_the_longest_outputs_come_first_where_limits_end_them() -> None:
    planned = PlannedWork(150, 150, 150)
    room = Room(100, 1_000)
    assert expected_work(planned, 20.0, 50.0, room).steps == 30.0 + 30.0
    assert expected_work(planned, 20.0, 50.0, room, longest_first=True).steps == 50.0


def test_prompts_behind_the_first_find_room_beside_outputs() -> None:
    planned = PlannedWork(1_000, 1_000, 1_000, 50_000, 50_000, 0)
    room = Room(100, 1_000)
    assert expected_work(planned, 20.0, 20.0, room).steps == 200.0 + 5.0
    # Unless there is more of them than steps have room for.
    assert expected_work(planned, 1.0, 1.0, room).steps == 51.0


def test_a_small_cache_runs_fewer_at_once() -> None:
    planned = PlannedWork(100, 100, 100, 8_000, 8_000, 0)
    wide = expected_work(planned, 20.0, 20.0, Room(100, 1_000))
    narrow = expected_work(planned, 20.0, 20.0, Room(100, 1_000, cache_tokens=1_000))
    assert (wide.steps, narrow.steps) == (20.0 + 8.0, 200.0 + 0.8)


def test_a_faster_card_and_a_smaller_model_take_less() -> None:
    size = Size(8e9, 16e9)
    h200, l4 = roofline(size, gpu("NVIDIA H200")), roofline(size, gpu("NVIDIA L4"))
    assert h200.prompt < l4.prompt
    assert h200.step < l4.step
    # 16 GB at 70% of 4.8 TB/s, and the step's own time.
    assert h200.step == pytest.approx(16e9 / (0.7 * 4.8e12) + 0.002)
    assert roofline(Size(1e9, 2e9), gpu("NVIDIA H200")).prompt == pytest.approx(h200.prompt / 8)
    assert gpu("A card of tomorrow").bandwidth == gpu("NVIDIA L4").bandwidth
    assert gpu("cuda:NVIDIA L40S, bfloat16").bandwidth > gpu("NVIDIA L4").bandwidth
