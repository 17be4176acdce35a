"""What waits and what runs, as metrics and autoscalers see it."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import update
from sqlmodel import col

from storage.database.connection import Database
from storage.database.states import ChunkState, JobState
from storage.database.tables import Job
from storage.jobs import chunks, jobs
from storage.jobs.backlog import Work, read_backlog
from storage.jobs.chunks import Counts
from storage.registry import models

PENDING, LEASED = ChunkState.PENDING, ChunkState.LEASED


def _claim(database: Database, **limits: Any) -> Any:
    return chunks.claim_chunk(database, "w", ["smollm2"], max_crashes=3, **limits)


def test_nothing_to_do_is_zeros_for_every_model(database: Database) -> None:
    models.ensure_default(database, "smollm2")
    backlog = read_backlog(database)
    assert list(backlog.work) == [Work("smollm2", LEASED), Work("smollm2", PENDING)]
    assert set(backlog.jobs.values()) == {0}
    assert (backlog.paused, backlog.expired_leases, backlog.oldest_seconds) == (0, 0, 0.0)


def test_work_is_counted_by_model_and_state(
    database: Database, running_job: Callable[..., Job], new_job: Callable[..., Job]
) -> None:
    oldest = running_job(4, 6)
    with database.write() as session:
        an_age_ago = {"created_at": oldest.created_at - 1_000}
        session.execute(update(Job).where(col(Job.id) == oldest.id).values(an_age_ago))
    running_job(3, model="other")
    new_job()
    assert _claim(database, lease_seconds=45) is not None
    backlog = read_backlog(database)
    assert {work for work in backlog.work if work.chunks} == {
        Work("smollm2", LEASED, 1, 4, 40),
        Work("smollm2", PENDING, 1, 6, 60),
        Work("other", PENDING, 1, 3, 30),
    }
    assert backlog.jobs[JobState.RUNNING] == 2
    assert backlog.jobs[JobState.VALIDATING] == 1
    assert 1_000.0 <= backlog.oldest_seconds < 1_060.0


def test_done_chunks_paused_jobs_and_stale_leases(
    database: Database, running_job: Callable[..., Job]
) -> None:
    running_job(2, 2)
    paused = running_job(5)
    jobs.pause(database, "acme", paused.id)
    done = _claim(database, lease_seconds=45)
    chunks.commit_chunk(
        database, done.id, done.attempt, part_key="p", part_sha256="s", counts=Counts(ok=2)
    )
    assert _claim(database, lease_seconds=-1) is not None
    backlog = read_backlog(database)
    assert [work for work in backlog.work if work.chunks] == [Work("smollm2", LEASED, 1, 2, 20)]
    assert backlog.paused == 1
    assert backlog.expired_leases == 1
