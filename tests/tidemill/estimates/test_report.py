"""What is told of an estimate, and of past ones."""

from datetime import datetime

import pytest
from msgspec import structs

from tidemill.client.shapes import (
    Actual,
    Batch,
    BatchExtension,
    DeviceSeconds,
    Estimate,
    OutputTokens,
    Volume,
)
from tidemill.estimates.ask import SAMPLE_MARK
from tidemill.estimates.past import past_jobs
from tidemill.estimates.report import meets, priced, rows_of

NOW = 1_800_000_000
ESTIMATE = Estimate(
    rows=1_000,
    invalid_rows=3,
    duplicate_rows=10,
    prompt_tokens=40_000,
    duplicate_tokens=400,
    prefix_tokens=10_000,
    output_tokens=OutputTokens(5_000, 4_000, 6_000, 64_000, "sample", 50),
    device_seconds=DeviceSeconds(7_200.0, 6_000.0, 9_000.0, "measured", 1, ["cuda:NVIDIA H200"]),
    engines=2,
    start_seconds=0.0,
    ahead_seconds=0.0,
    volumes=[
        Volume(n, 1_000 * n, 5_000 * n, 7_200.0 * n, 3_600.0 * n, NOW + 3_600 * n)
        for n in (1, 2, 3)
    ],
)


def test_every_figure_says_from_what_it_comes() -> None:
    deadline = datetime.fromtimestamp(NOW + 2 * 3_600).astimezone()
    rows = {name: (value, source) for name, value, source in rows_of(ESTIMATE, deadline)}
    assert all(value for value, _ in rows.values())
    assert rows["rows"] == ("1,000, of which 3 cannot be run", "counted")
    assert rows["shared prefixes"] == ("10,000 prompt tokens saved (25.0%)", "counted")
    assert rows["output tokens"] == (
        "5,000 (4,000 to 6,000)",
        "50 rows of this input, really run",
    )
    assert rows["device time"] == (
        "2 h 00 min (1 h 40 min to 2 h 30 min)",
        "what 1 job took on cuda:NVIDIA H200",
    )
    assert "in time" in rows["1× the rows"][0]
    assert "in time" in rows["2× the rows"][0]
    assert "TOO LATE" in rows["3× the rows"][0]
    assert "waits first" not in rows


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        ({"ahead_seconds": 90.0}, "waits first", "1 min 30 s"),
        ({"start_seconds": 2.5}, "engine's start", "2.5 s"),
        (
            {"device_seconds": DeviceSeconds(1.0, 0.5, 2.0, "roofline", 0, ["NVIDIA L4"])},
            "device time",
            "a roofline of NVIDIA L4: never measured here",
        ),
        (
            {"output_tokens": OutputTokens(9, 1, 9, 9, "limit")},
            "output tokens",
            "the limits alone",
        ),
        (
            {"output_tokens": OutputTokens(9, 1, 9, 9, "history", 7)},
            "output tokens",
            "7 rows of earlier jobs of this kind",
        ),
    ],
)
def test_what_is_not_known_is_said(changes: dict[str, object], name: str, words: str) -> None:
    told = rows_of(structs.replace(ESTIMATE, **changes), None)
    assert any(words in f"{value} {source}" for title, value, source in told if title == name)


def test_a_price_of_ones_own_comes_before_the_services() -> None:
    assert [each.cost for each in priced(ESTIMATE, 2.5).volumes] == [5.0, 10.0, 15.0]
    served = structs.replace(ESTIMATE, volumes=[structs.replace(ESTIMATE.volumes[0], cost=7.0)])
    assert priced(served, None).volumes[0].cost == 7.0
    assert "costs 7.00" in {a: b for a, b, _ in rows_of(served, None)}["1× the rows"]
    assert [each.cost for each in priced(served, 0.0).volumes] == [0.0]


def test_an_end_that_is_not_known_meets_no_deadline() -> None:
    assert not meets(structs.replace(ESTIMATE.volumes[0], finish_at=None), datetime.now())


def batch(status: str = "completed", actual: Actual | None = None, **more: str) -> Batch:
    estimate = structs.replace(ESTIMATE, actual=actual)
    extension = BatchExtension(estimate=estimate)
    return Batch(
        "batch_1",
        status,
        "/v1/completions",
        "file",
        NOW,
        metadata={"input": "in.txt", **more},
        tidemill=extension,
    )


def test_past_jobs_are_those_that_ran_to_their_end() -> None:
    actual = Actual(40_000, 10_000, 4_000, 9_000.0, 4_600.0)
    (past,) = past_jobs(
        [
            batch(actual=actual),
            batch(),  # an estimate alone
            batch("cancelled", actual),
            batch(actual=actual, **SAMPLE_MARK),
            Batch("batch_2", "completed", "/v1/completions", "file", NOW),
        ]
    )
    assert (past.id, past.input, past.rows) == ("batch_1", "in.txt", 1_000)
    assert (past.output_ratio, past.device_ratio) == (1.25, 0.8)
    assert past.cells[3:9] == ("4,000", "5,000", "1.25", "9,000.0 s", "7,200.0 s", "0.80")
    nothing = past_jobs([batch(actual=Actual(0, 0, 0, 0.0))])[0]
    assert (nothing.output_ratio, nothing.cells[5]) == (None, "")
