"""Paused jobs: nothing new of them is claimed, and everything else goes on."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import update

from moves import claim, commit, let_waits_pass, must_claim, states, tick
from storage.database.connection import Database
from storage.database.states import ChunkState, JobState
from storage.database.tables import Job
from storage.errors import NotFound, StateConflict
from storage.jobs import chunks, jobs, planning
from storage.jobs.chunks import Counts
from storage.wakeups import Wakeup

Create = Callable[..., Job]


def test_pausing_and_resuming_twice_is_harmless(
    database: Database, new_job: Create, running_job: Create
) -> None:
    for job in (new_job(), running_job()):
        first = jobs.pause(database, "acme", job.id)
        assert first.paused_at is not None
        assert jobs.pause(database, "acme", job.id).paused_at == first.paused_at
        assert jobs.resume(database, "acme", job.id).paused_at is None
        assert jobs.resume(database, "acme", job.id).paused_at is None
        assert (first.state, first.expires_at) == (job.state, job.expires_at)


def test_a_pause_whose_answer_is_lost(lossy: Any, running_job: Create) -> None:
    job = running_job()
    lossy.losses = 1
    assert jobs.pause(lossy, "acme", job.id).paused_at is not None


def test_only_a_job_with_work_to_come_is_paused(
    database: Database, new_job: Create, running_job: Create
) -> None:
    finalizing = running_job(2)
    commit(database, must_claim(database))
    stopped = running_job()
    jobs.request_stop(database, "acme", stopped.id)
    expired = running_job(window_seconds=0.0)
    failed = new_job()
    claimed = planning.claim_plan(database, "p", lease_seconds=45, job_id=failed.id)
    assert claimed is not None
    planning.fail_job(database, failed.id, claimed.plan_epoch, planning.Refusal([]))
    tick(database)
    assert jobs.load(database, finalizing.id).state == JobState.FINALIZING
    for job in (stopped, expired, failed, finalizing):
        for change in (jobs.pause, jobs.resume):
            with pytest.raises(StateConflict):
                change(database, "acme", job.id)
            with pytest.raises(NotFound):
                change(database, "other", job.id)


def test_a_stop_ends_a_pause(database: Database, running_job: Create) -> None:
    job = running_job()
    jobs.pause(database, "acme", job.id)
    assert jobs.request_stop(database, "acme", job.id).paused_at is None


def test_a_paused_job_is_planned_and_stays_paused(
    database: Database, new_job: Create, make_plan: Callable[..., planning.Plan]
) -> None:
    job = new_job()
    jobs.pause(database, "acme", job.id)
    claimed = planning.claim_plan(database, "p", lease_seconds=45)
    assert claimed is not None
    running = planning.commit_plan(database, job.id, claimed.plan_epoch, make_plan(4))
    assert (running.state, running.paused_at is None) == (JobState.RUNNING, False)


def test_a_paused_jobs_chunks_wait(database: Database, running_job: Create) -> None:
    job, other = running_job(1, 1, priority=1), running_job(1)
    in_flight = must_claim(database)
    jobs.pause(database, "acme", job.id)
    assert must_claim(database).job_id == other.id
    assert claim(database) is None
    renewed = chunks.renew_chunk(
        database, in_flight.id, in_flight.attempt, Counts(), lease_seconds=45
    )
    assert (renewed.still_mine, renewed.stop) == (True, None)
    assert commit(database, in_flight).state == ChunkState.DONE
    jobs.resume(database, "acme", job.id)
    assert must_claim(database).a == 1


def test_a_paused_job_rings_for_no_worker(database: Database, running_job: Create) -> None:
    job = running_job(4)
    jobs.pause(database, "acme", job.id)
    assert tick(database) == []
    jobs.resume(database, "acme", job.id)
    assert tick(database) == [Wakeup.drain("smollm2")]


def test_a_paused_job_still_rings_for_its_planner(database: Database, new_job: Create) -> None:
    job = new_job()
    jobs.pause(database, "acme", job.id)
    assert tick(database) == [Wakeup.plan(job.id)]


def test_a_paused_job_whose_chunks_are_done_ends(database: Database, running_job: Create) -> None:
    job = running_job(4)
    chunk = must_claim(database)
    jobs.pause(database, "acme", job.id)
    commit(database, chunk)
    assert tick(database) == [Wakeup.finalize(job.id)]
    assert jobs.load(database, job.id).paused_at is None


@pytest.mark.parametrize("planned", [False, True])
def test_a_paused_job_expires(
    database: Database, new_job: Create, running_job: Create, planned: bool
) -> None:
    job = running_job(4, window_seconds=60.0) if planned else new_job(window_seconds=60.0)
    jobs.pause(database, "acme", job.id)
    tick(database)
    assert jobs.load(database, job.id).cancel is None
    with database.write() as session:
        session.execute(update(Job).values(expires_at=0.0))
    tick(database)
    ended = jobs.load(database, job.id)
    assert (ended.cancel, ended.paused_at) == ("expired", None)
    assert ended.state == "finalizing"


def test_a_paused_job_is_cancelled_at_once(database: Database, running_job: Create) -> None:
    job = running_job(4, 4)
    jobs.pause(database, "acme", job.id)
    jobs.request_stop(database, "acme", job.id)
    assert tick(database) == [Wakeup.finalize(job.id)]
    assert states(database, job) == ["cancelled", "cancelled"]


def test_a_dead_workers_chunk_of_a_paused_job_waits(
    database: Database, running_job: Create
) -> None:
    job = running_job(1)
    must_claim(database, lease_seconds=0)
    jobs.pause(database, "acme", job.id)
    assert tick(database) == []
    assert states(database, job) == ["pending"]
    for _ in range(2):
        jobs.resume(database, "acme", job.id)
        let_waits_pass(database)
        must_claim(database, lease_seconds=0)
        jobs.pause(database, "acme", job.id)
        tick(database)
    let_waits_pass(database)
    assert chunks.claim_poison(database, "r", lease_seconds=45, max_crashes=3) is None
    jobs.resume(database, "acme", job.id)
    assert chunks.claim_poison(database, "r", lease_seconds=45, max_crashes=3) is not None
