"""How long outputs are expected to be, and how long a job will still take."""

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.estimates.left import Done, seconds_left
from storage.estimates.lengths import (
    Lengths,
    LengthSource,
    Limits,
    Seen,
    from_history,
    from_limits,
    from_sample,
)

LIMITS = Limits(mean=64.0, longest=64.0)


def in_order(found: Lengths, limits: Limits) -> bool:
    return (
        0 <= found.low <= found.mean <= found.high <= limits.mean + 1e-9
        and found.mean <= found.longest + 1e-9
    )


def test_limits_alone_are_a_bound() -> None:
    assert from_limits(LIMITS) == Lengths(64.0, 1.0, 64.0, 64.0, LengthSource.LIMIT, cut=True)


@given(st.lists(st.integers(0, 64), min_size=1, max_size=60), st.integers(60, 10_000))
def test_a_sample_lies_within_the_limits(tokens: list[int], rows: int) -> None:
    found = from_sample(tokens, 64 * len(tokens), LIMITS, rows)
    assert in_order(found, LIMITS)
    assert (found.source, found.rows) == (LengthSource.SAMPLE, len(tokens))


def test_a_sample_says_how_sure_it_is() -> None:
    draw = Random(7)
    every = [min(64, 1 + int(draw.expovariate(1 / 20))) for _ in range(2_000)]
    truth = sum(every) / len(every)
    inside = 0
    for seed in range(40):
        tokens = Random(seed).sample(every, 50)
        found = from_sample(tokens, 64 * 50, LIMITS, len(every))
        inside += found.low <= truth <= found.high
    assert inside >= 34, "two standard errors hold nearly always"
    whole = from_sample(every, 64 * len(every), LIMITS, len(every))
    assert whole.mean == pytest.approx(truth)
    assert whole.high - whole.low < 0.1 * truth, "there is nothing left to be unsure of"


def test_outputs_that_their_limits_end_grow_with_them() -> None:
    wide = Limits(256.0, 256.0)
    cut = Seen(rows=10, tokens=640, limit_tokens=640)
    assert from_history([cut], wide, 100).mean == 256.0
    assert from_history([cut], wide, 100).cut
    natural = Seen(rows=10, tokens=200, limit_tokens=640)
    assert from_history([natural], wide, 100).mean == 20.0
    assert not from_history([natural], wide, 100).cut
    assert from_sample([64] * 5, 320, wide, 100).mean == 256.0


@given(
    st.lists(
        st.builds(Seen, st.integers(1, 100), st.integers(0, 6_400), st.just(6_400)),
        min_size=1,
        max_size=5,
    )
)
def test_history_lies_within_the_limits(jobs: list[Seen]) -> None:
    found = from_history(jobs, LIMITS, 1_000)
    assert in_order(found, LIMITS)
    assert found.rows == sum(job.rows for job in jobs)


def test_jobs_that_differ_make_a_wide_range() -> None:
    found = from_history([Seen(10, 100, 640), Seen(30, 900, 1_920)], LIMITS, 100)
    assert found.mean == 25.0
    assert (found.low, found.high) == (10.0, 30.0)


def estimate(expected: float = 100.0, source: str = "measured", engines: int = 1) -> dict[str, Any]:
    return {
        "prompt_tokens": 1_000,
        "prompt_seconds": 40.0,
        "output_tokens": {"expected": 2_000},
        "device_seconds": {"expected": expected, "source": source},
        "engines": engines,
        "start_seconds": 0.0,
    }


def test_time_left_begins_with_the_estimate_and_ends_at_none() -> None:
    begun = Done(0, 100, 0, 0)
    assert seconds_left(estimate(), begun, 1.0) == 99.0
    assert seconds_left(estimate(engines=4), begun, 1.0) == 24.0
    assert seconds_left(estimate(), Done(100, 100, 1_000, 2_000), 80.0) == 0.0


def test_half_of_the_work_takes_as_long_again_whatever_was_expected() -> None:
    half = Done(50, 100, 500, 1_000)
    assert seconds_left(estimate(), half, 70.0) == pytest.approx(70.0, rel=0.02)
    assert seconds_left(estimate(9_999.0), half, 70.0) == pytest.approx(70.0, rel=0.02)


def test_lengths_are_learned_while_it_runs() -> None:
    # Outputs are a quarter of what was expected: far more of the work is done than it seemed.
    short, expected = Done(50, 100, 500, 250), Done(50, 100, 500, 1_000)
    left = seconds_left(estimate(), short, 70.0)
    assert seconds_left(estimate(), expected, 70.0) < left
    # By the tokens that were expected, it would be about twice as long.
    assert left < 110.0


@given(
    st.integers(0, 100),
    st.floats(0.1, 1e4),
    st.integers(0, 5_000),
    st.sampled_from(["measured", "roofline"]),
)
def test_time_left_is_never_negative(rows: int, running: float, tokens: int, source: str) -> None:
    done = Done(rows, 100, 10 * rows, tokens)
    assert seconds_left(estimate(source=source), done, running) >= 0.0
