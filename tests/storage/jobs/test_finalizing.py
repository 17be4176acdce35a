"""The finalizer's lease, and the one transaction that makes a job terminal."""

from collections.abc import Callable
from typing import Any

import pytest

from storage.database.connection import Database
from storage.database.tables import Job
from storage.errors import CountsDiffer, NotFound, StateConflict
from storage.jobs import chunks, finalizing, jobs
from storage.jobs.chunks import Counts
from storage.jobs.finalizing import Results
from storage.jobs.reconcile import reconcile
from storage.registry import files
from storage.registry.files import NewFile

Create = Callable[..., Job]
MakeFile = Callable[..., NewFile]


def run(database: Database, *, err: int = 0, limit: int = 100) -> None:
    """Commit up to ``limit`` chunks, each with ``err`` error lines."""
    for _ in range(limit):
        chunk = chunks.claim_chunk(database, "w", ["smollm2"], lease_seconds=45, max_crashes=3)
        if chunk is None:
            break
        counts = Counts(chunk.b - chunk.a - err, err, 10, 5, 3)
        chunks.commit_chunk(
            database, chunk.id, chunk.attempt, part_key="p", part_sha256="s", counts=counts
        )


def claim(database: Database, lease_seconds: float = 45) -> Job:
    reconcile(database, max_crashes=3)
    job = finalizing.claim_finalize(database, "finalizer", lease_seconds=lease_seconds)
    assert job is not None
    return job


def test_a_completed_job(database: Database, running_job: Create, new_file: MakeFile) -> None:
    running_job(4, 4)
    run(database, err=1)
    job = claim(database)
    assert job.finalizing_at is not None
    output = new_file(purpose="batch_output", expires_after=3600)
    errors = new_file(purpose="batch_output")
    ended = finalizing.commit_final(database, job.id, job.fin_epoch, Results(6, 2, output, errors))
    assert (ended.state, ended.n_ok, ended.n_err, ended.n_cancelled) == ("completed", 6, 2, 0)
    assert (ended.prompt_tokens, ended.cached_tokens, ended.completion_tokens) == (20, 10, 6)
    assert (ended.out_file_id, ended.out_key, ended.out_sha256) == (
        output.id,
        output.object_key,
        output.sha256,
    )
    assert (ended.err_file_id, ended.err_key) == (errors.id, errors.object_key)
    assert ended.completed_at is not None
    assert ended.lease_exp is None
    kept = files.get(database, "acme", output.id)
    assert kept.expires_at == pytest.approx(kept.created_at + 3600, abs=1)


def test_a_file_that_would_be_empty_is_none(
    database: Database, running_job: Create, new_file: MakeFile
) -> None:
    running_job(2)
    run(database)
    job = claim(database)
    ended = finalizing.commit_final(
        database, job.id, job.fin_epoch, Results(2, 0, new_file(), None)
    )
    assert (ended.err_file_id, ended.err_key, ended.err_sha256) == (None, None, None)


def test_a_cancelled_job_keeps_what_is_done(
    database: Database, running_job: Create, new_file: MakeFile
) -> None:
    job = running_job(4, 4, 2)
    run(database, limit=1)
    jobs.request_stop(database, "acme", job.id)
    job = claim(database)
    ended = finalizing.commit_final(
        database, job.id, job.fin_epoch, Results(4, 6, new_file(), new_file())
    )
    assert (ended.state, ended.n_ok, ended.n_err, ended.n_cancelled) == ("cancelled", 4, 0, 6)
    assert (ended.prompt_tokens, ended.completion_tokens) == (10, 3)
    assert ended.cancelled_at is not None
    assert ended.expired_at is None


def test_a_cancel_that_comes_while_the_results_are_put_together(
    database: Database, running_job: Create, new_file: MakeFile
) -> None:
    running_job(4)
    run(database)
    job = claim(database)
    jobs.request_stop(database, "acme", job.id)
    assert finalizing.renew_finalize(
        database, job.id, job.fin_epoch, lease_seconds=45
    ).job_cancelled
    ended = finalizing.commit_final(
        database, job.id, job.fin_epoch, Results(4, 0, new_file(), None)
    )
    assert (ended.state, ended.n_ok, ended.n_cancelled) == ("cancelled", 4, 0)


def test_an_expired_job(database: Database, running_job: Create, new_file: MakeFile) -> None:
    running_job(4, 4, window_seconds=0.0)
    reconcile(database, max_crashes=3)
    job = claim(database)
    ended = finalizing.commit_final(
        database, job.id, job.fin_epoch, Results(0, 8, None, new_file())
    )
    assert (ended.state, ended.n_cancelled) == ("expired", 8)
    assert ended.expired_at is not None
    assert ended.cancelling_at is None


@pytest.mark.parametrize(("n_output", "n_errors"), [(7, 0), (8, 1), (7, 1), (0, 8)])
def test_wrong_counts_publish_nothing(
    database: Database, running_job: Create, new_file: MakeFile, n_output: int, n_errors: int
) -> None:
    running_job(4, 4)
    run(database)
    job = claim(database)
    output = new_file()
    with pytest.raises(CountsDiffer):
        finalizing.commit_final(
            database, job.id, job.fin_epoch, Results(n_output, n_errors, output, None)
        )
    assert jobs.load(database, job.id).state == "finalizing"
    with pytest.raises(NotFound):
        files.get(database, "acme", output.id)


def test_a_lost_lease_goes_to_another_with_a_new_epoch(
    database: Database, running_job: Create, new_file: MakeFile
) -> None:
    running_job(4)
    run(database)
    first = claim(database, lease_seconds=0)
    second = claim(database)
    assert second.fin_epoch == first.fin_epoch + 1
    results = Results(4, 0, new_file(), None)
    assert not finalizing.renew_finalize(
        database, first.id, first.fin_epoch, lease_seconds=45
    ).still_mine
    with pytest.raises(StateConflict):
        finalizing.commit_final(database, first.id, first.fin_epoch, results)
    with pytest.raises(StateConflict):
        finalizing.fail_final(database, first.id, first.fin_epoch, [])
    assert finalizing.renew_finalize(
        database, second.id, second.fin_epoch, lease_seconds=45
    ).still_mine
    ended = finalizing.commit_final(database, second.id, second.fin_epoch, results)
    assert ended.state == "completed"
    with pytest.raises(StateConflict):
        finalizing.commit_final(database, first.id, first.fin_epoch, results)


def test_a_terminal_job_is_absorbing(
    database: Database, running_job: Create, new_file: MakeFile
) -> None:
    running_job(4)
    run(database)
    job = claim(database)
    first = Results(4, 0, new_file(), None)
    finalizing.commit_final(database, job.id, job.fin_epoch, first)
    finalizing.commit_final(database, job.id, job.fin_epoch, Results(4, 0, new_file(), None))
    with pytest.raises(StateConflict):
        finalizing.fail_final(database, job.id, job.fin_epoch, [])
    with pytest.raises(StateConflict):
        jobs.request_stop(database, "acme", job.id)
    assert reconcile(database, max_crashes=3) == []
    assert first.output is not None
    assert jobs.load(database, job.id).out_file_id == first.output.id


def test_a_commit_whose_answer_is_lost(lossy: Any, running_job: Create, new_file: MakeFile) -> None:
    running_job(4)
    run(lossy)
    job = claim(lossy)
    lossy.losses = 1
    ended = finalizing.commit_final(lossy, job.id, job.fin_epoch, Results(4, 0, new_file(), None))
    assert ended.state == "completed"


def test_results_that_cannot_be_put_together(database: Database, running_job: Create) -> None:
    running_job(4)
    run(database)
    job = claim(database)
    errors = [{"code": "counts_differ", "message": "…", "param": None, "line": None}]
    ended = finalizing.fail_final(database, job.id, job.fin_epoch, errors)
    assert (ended.state, ended.errors, ended.completion_tokens) == ("failed", errors, 3)
    again = finalizing.fail_final(database, job.id, job.fin_epoch, errors)
    assert again.failed_at == ended.failed_at


def test_a_lease_given_back(database: Database, running_job: Create) -> None:
    running_job(4)
    run(database)
    job = claim(database)
    finalizing.release_finalize(database, job.id, job.fin_epoch)
    again = claim(database)
    assert (again.id, again.attempts) == (job.id, 1)
    finalizing.release_finalize(database, job.id, again.fin_epoch, delay=60)
    assert finalizing.claim_finalize(database, "f", lease_seconds=45) is None
