"""A retry runs the lines of its batch's error file, and no others, under their own numbers."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from storage.database.states import JobState
from storage.database.tables import Job
from storage.errors import RetrySourceGone
from storage.jobs import jobs
from storage.jobs.jobs import NewJob
from storage.registry import files
from storage.streams.jsonl import Line as FileLine
from worker.endpoints.result_lines import result_id
from worker.plan.retry import FailedLines

Line = Callable[..., dict[str, Any]]
Rows = list[dict[str, Any]]


def _retry(bench: Any, earlier: Job, **options: Any) -> Job:
    file = files.get(bench.worker.database, earlier.tenant_id, earlier.input_file_id)
    new = NewJob(
        earlier.tenant_id,
        earlier.endpoint,
        "24h",
        86_400.0,
        file,
        options=options or earlier.options,
        retry_of=earlier.id,
    )
    finished: Job = bench.finish(jobs.create_job(bench.worker.database, new).job.id)
    return finished


def _error_code(job: Job) -> Any:
    assert job.errors is not None
    return job.errors[0]["code"]


def _ids(rows: Rows) -> list[str | None]:
    return [row["custom_id"] for row in rows]


def _mixed(line: Line) -> list[Any]:
    """Blank lines, good ones, and bad ones of several kinds, at lines 4, 6, 7 and 9."""
    return [
        line("a"),
        b"",
        line("b", [5, 6]),
        line("c", temperature=9),
        line("d", [7, 8]),
        b"{nope",
        line("a", [9, 9]),
        line("e", [3, 4]),
        line("f", "w " * 70),
    ]


def test_only_the_failed_lines_are_planned_under_their_own_numbers(bench: Any, line: Line) -> None:
    first = bench.finish(bench.create(_mixed(line), on_invalid="skip"))
    assert (first.n_ok, first.n_err) == (4, 4)
    asked = len(bench.lab.submitted)
    second = _retry(bench, first)
    assert (second.state, second.n_lines, second.n_ok, second.n_err) == (
        JobState.COMPLETED,
        4,
        0,
        4,
    )
    assert len(bench.lab.submitted) == asked, "no line that has an output is run again"
    errors = bench.read(second.err_key)
    assert [row["tidemill"]["line"] for row in errors] == [4, 6, 7, 9]
    codes = [row["response"]["body"]["error"]["code"] for row in errors]
    assert codes[2] == "duplicate_custom_id", "the line it doubles has an output of the first batch"
    assert _ids(errors) == ["c", None, "a", "f"]


def test_lines_that_were_never_run_are_run_by_the_retry(make_bench: Any, line: Line) -> None:
    bench = make_bench(chunk_lines=8, renew_seconds=0.05)
    lines = [line(f"row{i}", [i % 50 + 2, i % 7 + 2, i + 2]) for i in range(120)]
    job_id = bench.create(lines)
    bench.plan(job_id)

    def stop(engine: Any) -> None:
        if len(bench.lab.submitted) >= 16:
            bench.lab.paused = True
            jobs.request_stop(bench.worker.database, "default", job_id)

    bench.lab.before_poll = stop
    first = bench.finish(job_id)
    bench.lab.before_poll = lambda engine: None
    bench.lab.paused = False
    assert first.state == JobState.CANCELLED
    assert first.n_ok + first.n_err + first.n_cancelled == 120
    missing = _ids(bench.read(first.err_key))
    assert missing
    second = _retry(bench, first)
    assert second.state == JobState.COMPLETED
    assert (second.n_lines, second.n_ok) == (len(missing), len(missing))
    assert _ids(bench.read(second.out_key)) == missing


def test_a_retry_can_be_retried(bench: Any, line: Line) -> None:
    first = bench.finish(bench.create(_mixed(line), on_invalid="skip"))
    third = _retry(bench, _retry(bench, first))
    assert (third.n_lines, third.n_err) == (4, 4)
    assert _ids(bench.read(third.err_key)) == ["c", None, "a", "f"]


def test_an_error_file_that_is_gone_fails_the_retry(bench: Any, line: Line) -> None:
    first = bench.finish(bench.create(_mixed(line), on_invalid="skip"))
    bench.worker.store.delete(first.err_key)
    assert _error_code(_retry(bench, first)) == "retry_source_gone"
    assert first.err_file_id is not None
    files.soft_delete(bench.worker.database, "default", first.err_file_id)
    with pytest.raises(RetrySourceGone):
        _retry(bench, first)


def test_an_error_file_of_another_input_is_refused(bench: Any, line: Line) -> None:
    first = bench.finish(bench.create(_mixed(line), on_invalid="skip"))
    other = bench.finish(bench.create([line("x", temperature=9)], on_invalid="skip"))
    bench.sql(f"UPDATE job SET err_file_id = '{first.err_file_id}' WHERE id = '{other.id}'")
    assert _error_code(_retry(bench, other)) == "retry_source_gone"


def test_the_error_file_is_read_no_further_than_the_input(line: Line) -> None:
    read: list[int] = []

    def errors() -> Iterator[FileLine]:
        for number in range(1, 1_000, 2):
            read.append(number)
            yield FileLine(number, b'{"id": "%s"}' % result_id("batch_1", number).encode())

    failed = FailedLines("batch_1", errors())
    assert [number for number in range(1, 100) if number in failed] == list(range(1, 100, 2))
    assert len(read) == 51
