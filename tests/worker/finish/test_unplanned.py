"""A job that is stopped before it is planned accounts for every line of its input all the same."""

import gzip
import tracemalloc
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from storage.database.states import JobState
from storage.jobs import finalizing, jobs
from storage.jobs.jobs import NewJob
from storage.jobs.reconcile import reconcile
from storage.registry import files
from worker.endpoints.result_lines import result_id
from worker.finish.finalizer import finalize_job
from worker.finish.unplanned import unplanned_records
from worker.plan.retry import retry_source

Line = Callable[..., dict[str, Any]]
REASONS = ("cancelled", "expired")


def _stop(bench: Any, job_id: str, reason: str) -> None:
    if reason == "cancelled":
        jobs.request_stop(bench.worker.database, "default", job_id)
    else:
        bench.sql(f"UPDATE job SET expires_at = 0 WHERE id = '{job_id}'")


def _stopped(bench: Any, lines: list[Any], reason: str = "cancelled", **options: Any) -> Any:
    job_id = bench.create(lines, **options)
    _stop(bench, job_id, reason)
    return bench.finish(job_id)


@pytest.mark.parametrize("on_invalid", ["fail", "skip"])
@pytest.mark.parametrize("reason", REASONS)
def test_every_line_gets_an_error(bench: Any, line: Line, reason: str, on_invalid: str) -> None:
    lines = [line("a"), b"", b" \t\r", line("b"), b"{nope", line("a"), {"custom_id": 7}, b'"c"']
    job = _stopped(bench, lines, reason, on_invalid=on_invalid)
    assert (job.state, job.n_lines, job.n_cancelled) == (reason, 6, 6)
    assert (job.n_ok, job.n_err, job.out_key, job.errors) == (0, 0, None, None)
    errors = bench.read(job.err_key)
    assert [row["custom_id"] for row in errors] == ["a", "b", None, "a", None, None]
    assert [row["id"] for row in errors] == [result_id(job.id, n) for n in (1, 4, 5, 6, 7, 8)]
    assert {(row["response"], row["error"]["code"]) for row in errors} == {
        (None, f"batch_{reason}")
    }
    view = jobs.view(bench.worker.database, "default", job.id)
    assert (view.progress.n_cancelled, view.progress.done) == (6, 0)
    assert not bench.lab.submitted


@pytest.mark.parametrize("reason", REASONS)
def test_a_planner_at_work_is_interrupted(
    bench: Any, line: Line, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stop comes in the middle of planning: the planner's work counts for nothing."""
    job_id = bench.create([line(f"row{i}") for i in range(50)])
    load = bench.worker.load_text_model

    def stop_then_load(name: str, source: str) -> Any:
        _stop(bench, job_id, reason)
        reconcile(bench.worker.database, max_crashes=3)
        return load(name, source)

    object.__setattr__(bench.worker, "load_text_model", stop_then_load)
    assert bench.plan(job_id).state == JobState.FINALIZING
    assert bench.chunks(job_id) == []
    job = bench.finish(job_id)
    assert (job.state, job.n_lines, len(bench.read(job.err_key))) == (reason, 50, 50)


def test_a_refusal_that_comes_after_the_stop_counts_for_nothing(
    bench: Any, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planner does not know of the stop yet when it finds out that the input is bad."""
    job_id = bench.create([line("a"), line("a"), b"{"])

    def stop_then_plan(*given: Any) -> Any:
        _stop(bench, job_id, "cancelled")
        return retry_source(*given)

    monkeypatch.setattr("worker.plan.job.retry_source", stop_then_plan)
    assert bench.plan(job_id).state == JobState.VALIDATING
    job = bench.finish(job_id)
    assert (job.state, job.n_lines, job.errors) == (JobState.CANCELLED, 3, None)
    assert [row["error"]["code"] for row in bench.read(job.err_key)] == ["batch_cancelled"] * 3


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty_file"),
        (b"\n \n", "empty_batch"),
        (b"{}\n" * 4, "too_many_tasks"),
        (gzip.compress(b"{}\n")[:-2], "input_damaged"),
        (gzip.compress(b" " * 30_000_000), "input_too_large"),
        (None, "input_modified"),
    ],
    ids=lambda value: value if isinstance(value, str) else "input",
)
@pytest.mark.parametrize("reason", REASONS)
def test_an_input_without_lines_to_account_for_fails_as_it_would_have(
    make_bench: Any, content: bytes | None, code: str, reason: str
) -> None:
    bench = make_bench(max_batch_lines=3)
    job_id = bench.create([content if content is not None else b"{}"])
    if content is None:
        bench.worker.store.delete(bench.job(job_id).input_key)
    _stop(bench, job_id, reason)
    job = bench.finish(job_id)
    assert (job.state, job.errors[0]["code"]) == (JobState.FAILED, code)
    assert (job.out_key, job.err_key, job.n_cancelled) == (None, None, 0)


def test_a_stopped_retry_accounts_for_the_lines_it_was_to_run(bench: Any, line: Line) -> None:
    first = bench.finish(
        bench.create([line("a"), line("b", temperature=9), b"{"], on_invalid="skip")
    )
    file = files.get(bench.worker.database, "default", first.input_file_id)
    new = NewJob("default", first.endpoint, "24h", 60.0, file, retry_of=first.id)
    retry = jobs.create_job(bench.worker.database, new).job.id
    _stop(bench, retry, "cancelled")
    job = bench.finish(retry)
    assert (job.state, job.n_lines) == (JobState.CANCELLED, 2)
    assert [row["id"] for row in bench.read(job.err_key)] == [result_id(job.id, n) for n in (2, 3)]


def test_what_a_stopped_job_left_can_be_retried(bench: Any, line: Line) -> None:
    first = _stopped(bench, [line("a"), b"", line("b")])
    file = files.get(bench.worker.database, "default", first.input_file_id)
    new = NewJob("default", first.endpoint, "24h", 86_400.0, file, retry_of=first.id)
    job = bench.finish(jobs.create_job(bench.worker.database, new).job.id)
    assert (job.state, job.n_ok) == (JobState.COMPLETED, 2)
    assert [row["custom_id"] for row in bench.read(job.out_key)] == ["a", "b"]


def test_a_finalizer_that_was_killed_is_followed_by_another(bench: Any, line: Line) -> None:
    job_id = bench.create([line("a"), line("b")])
    _stop(bench, job_id, "cancelled")
    reconcile(bench.worker.database, max_crashes=3)
    dead = finalizing.claim_finalize(bench.worker.database, "dead", lease_seconds=0)
    assert dead is not None
    finalize_job(bench.worker, job_id)
    job = bench.job(job_id)
    assert (job.state, job.fin_epoch, len(bench.read(job.err_key))) == (JobState.CANCELLED, 2, 2)


def test_an_interrupted_finalizer_publishes_nothing(
    bench: Any, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = bench.create([line(f"row{i}") for i in range(9)])
    _stop(bench, job_id, "cancelled")
    reconcile(bench.worker.database, max_crashes=3)
    records = unplanned_records

    def stop_half_way(*args: Any) -> Any:
        for number, record in enumerate(records(*args)):
            if number == 4:
                bench.worker.stopping.set()
            yield record

    monkeypatch.setattr("worker.finish.finalizer.unplanned_records", stop_half_way)
    finalize_job(bench.worker, job_id)
    assert (bench.job(job_id).state, bench.job(job_id).attempts) == (JobState.FINALIZING, 0)
    assert not list(bench.worker.store.list("results/"))
    monkeypatch.undo()
    bench.worker.stopping.clear()
    job = bench.finish(job_id)
    assert [row["custom_id"] for row in bench.read(job.err_key)] == [f"row{i}" for i in range(9)]


def test_memory_stays_flat(bench: Any) -> None:
    """Twenty megabytes of lines, of which never more than some blocks are in memory."""
    row = orjson.dumps({"custom_id": "a", "body": "x" * 10_000}) + b"\n"
    job_id = bench.create([row * 2_000])
    _stop(bench, job_id, "cancelled")
    reconcile(bench.worker.database, max_crashes=3)
    tracemalloc.start()
    try:
        finalize_job(bench.worker, job_id)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert bench.job(job_id).n_cancelled == 2_000
    assert peak < 6_000_000
