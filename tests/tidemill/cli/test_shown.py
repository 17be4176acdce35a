"""What is shown of what a service answers, and of what was done before something failed."""

import json
from contextlib import suppress
from typing import Any

import pytest

from storage.datasets.values.origins import Origin as DatasetOrigin
from storage.datasets.values.results import Result, ResultError
from tidemill.cli.render import batch_row, describe, reason_line, shown_at_the_end
from tidemill.client.shapes import Batch, BatchProblem, BatchProblems, Origin
from tidemill.run.summary import group_reasons

NO_DATES = (10**12, -(10**12), 2**63, -(2**63), 10**30)


@pytest.mark.parametrize("seconds", NO_DATES)
def test_a_time_that_is_no_date_is_shown_as_it_is(seconds: int) -> None:
    batch = Batch("batch_1", "validating", "/v1/completions", "file", seconds, expires_at=seconds)
    fields = dict(describe(batch))
    assert (fields["created"], fields["expires"]) == (str(seconds), str(seconds))
    assert batch_row(batch)[-1] == str(seconds)


def test_a_time_is_shown_as_a_date() -> None:
    batch = Batch("batch_1", "validating", "/v1/completions", "file", 1_700_000_000)
    assert dict(describe(batch))["created"].startswith("2023-11-1")


@pytest.mark.parametrize(("several", "shown"), [(True, [{"a": 1}]), (False, {"a": 1})])
def test_what_was_done_is_shown_whatever_ends_it(
    capsys: pytest.CaptureFixture[str], several: bool, shown: Any
) -> None:
    for as_json in (True, False):
        with suppress(KeyboardInterrupt), shown_at_the_end(as_json, several=several) as done:
            done.append({"a": 1})
            raise KeyboardInterrupt
        out = capsys.readouterr().out
        assert (json.loads(out) if as_json else out) == (shown if as_json else "")


@pytest.mark.parametrize(
    ("problem", "shown"),
    [
        (BatchProblem("c", "Wrong."), "Wrong."),
        (BatchProblem("c", "Wrong.", line=7), "line 7: Wrong."),
        (BatchProblem("c", "Wrong.", None, 7, Origin("s3://b/a.csv", 2)), "s3://b/a.csv, row 2: W"),
    ],
)
def test_a_problem_is_shown_with_its_place(problem: BatchProblem, shown: str) -> None:
    errors = BatchProblems([problem])
    batch = Batch("batch_1", "failed", "/v1/completions", "file", 1, errors=errors)
    assert dict(describe(batch))["problem"].startswith(shown)


def test_a_reason_names_the_file_of_a_dataset() -> None:
    error = ResultError("unreadable_row", "Null.")
    result = Result(None, None, None, None, error, DatasetOrigin("s3://b/a.csv", 2))
    (reason,) = group_reasons([result])
    assert reason_line(reason) == "  1 × unreadable row, e.g. row 2 of s3://b/a.csv: Null."
