"""Whose failed lines can be run again."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import update
from sqlmodel import col

from storage.database.connection import Database
from storage.database.tables import File, Job
from storage.errors import NotFound, NothingToRetry, RetrySourceGone, StateConflict
from storage.jobs import chunks, finalizing, jobs, retries
from storage.jobs.chunks import Counts
from storage.jobs.finalizing import Results
from storage.jobs.jobs import NewJob
from storage.jobs.reconcile import reconcile
from storage.registry import files
from storage.registry.files import NewFile

Create = Callable[..., Job]
MakeFile = Callable[..., NewFile]


@pytest.fixture
def ended(database: Database, running_job: Create, new_file: MakeFile) -> Callable[..., Job]:
    """Makes ended jobs: one chunk of four lines is done, of which ``failed`` failed; four more
    lines are cancelled where ``stop`` is set."""

    def make(*, failed: int = 1, stop: str | None = None) -> Job:
        job = running_job(4, 4) if stop else running_job(4)
        chunk = chunks.claim_chunk(database, "w", ["smollm2"], lease_seconds=45, max_crashes=3)
        assert chunk is not None
        chunks.commit_chunk(
            database,
            chunk.id,
            chunk.attempt,
            part_key="p",
            part_sha256="s",
            counts=Counts(4 - failed, failed),
        )
        if stop:
            with database.write() as session:
                session.execute(update(Job).where(col(Job.id) == job.id).values(cancel=stop))
        reconcile(database, max_crashes=3)
        mine = finalizing.claim_finalize(database, "f", lease_seconds=45, job_id=job.id)
        assert mine is not None
        errors = failed + (4 if stop else 0)
        results = Results(4 - failed, errors, new_file(), new_file() if errors else None)
        return finalizing.commit_final(database, job.id, mine.fin_epoch, results)

    return make


@pytest.mark.parametrize("stop", [None, "cancelled", "expired"])
def test_failed_lines_of_an_ended_job(
    database: Database, ended: Callable[..., Job], stop: str | None
) -> None:
    job = ended(stop=stop)
    source = retries.retry_source(database, "acme", job.id)
    assert (source.job.id, source.job.state) == (job.id, stop or "completed")
    assert source.error_file.id == job.err_file_id
    assert source.input_file.object_key == job.input_key


def test_a_retry_refers_to_the_first_job(database: Database, ended: Callable[..., Job]) -> None:
    first = ended()
    source = retries.retry_source(database, "acme", first.id)
    new = NewJob("acme", "/v1/x", "24h", 60, source.input_file, retry_of=first.id)
    made = jobs.create_job(database, new).job
    assert jobs.load(database, made.id).retry_of == first.id
    assert (made.input_key, made.input_etag) == (first.input_key, first.input_etag)
    assert first.retry_of is None


def test_other_tenants_jobs_are_not_retried(database: Database, ended: Callable[..., Job]) -> None:
    with pytest.raises(NotFound):
        retries.retry_source(database, "other", ended().id)


def test_a_job_without_a_result_is_not_retried(
    database: Database, new_job: Create, running_job: Create
) -> None:
    for job in (new_job(), running_job()):
        with pytest.raises(StateConflict):
            retries.retry_source(database, "acme", job.id)


def test_nothing_failed_nothing_to_retry(database: Database, ended: Callable[..., Job]) -> None:
    with pytest.raises(NothingToRetry):
        retries.retry_source(database, "acme", ended(failed=0).id)


@pytest.mark.parametrize("which", ["err_file_id", "input_file_id"])
@pytest.mark.parametrize("how", ["deleted", "expired"])
def test_a_file_that_is_gone(
    database: Database, ended: Callable[..., Job], which: Any, how: str
) -> None:
    job = ended()
    file_id = getattr(job, which)
    if how == "deleted":
        files.soft_delete(database, "acme", file_id)
    else:
        with database.write() as session:
            session.execute(update(File).where(col(File.id) == file_id).values(expires_at=1.0))
    with pytest.raises(RetrySourceGone):
        retries.retry_source(database, "acme", job.id)
