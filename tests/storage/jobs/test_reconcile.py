"""What the rows say has to happen next, whoever died meanwhile."""

from collections.abc import Callable

import pytest
from sqlalchemy import update

from moves import commit, every_chunk, let_waits_pass, must_claim, states, tick
from storage.database.connection import Database
from storage.database.states import JobState, StopReason
from storage.database.tables import Job
from storage.errors import CountsDiffer
from storage.jobs import chunks, finalizing, garbage, jobs, planning
from storage.jobs.chunks import Counts
from storage.jobs.finalizing import Results
from storage.jobs.reconcile import reclaim_embedded
from storage.registry import files
from storage.wakeups import Wakeup

Create = Callable[..., Job]


def test_wakeups_follow_a_job(database: Database, new_job: Create, running_job: Create) -> None:
    assert tick(database) == []
    waiting = new_job()
    assert tick(database) == [Wakeup.plan(waiting.id)]
    planning.claim_plan(database, "p", lease_seconds=45)
    assert tick(database) == []
    job = running_job(4)
    assert tick(database) == [Wakeup.drain("smollm2")]
    chunk = must_claim(database)
    assert tick(database) == []
    commit(database, chunk)
    assert tick(database) == [Wakeup.finalize(job.id)]
    assert jobs.load(database, job.id).state == JobState.FINALIZING
    finalizing.claim_finalize(database, "f", lease_seconds=45)
    assert tick(database) == []


def test_one_wakeup_a_model(database: Database, running_job: Create) -> None:
    running_job(1, 1, 1)
    running_job(1, model="large")
    running_job(1)
    wakeups = tick(database)
    assert sorted(wakeup.args[0] for wakeup in wakeups) == ["large", "smollm2"]
    assert {wakeup.queue for wakeup in wakeups} == {
        "tidemill.model.large",
        "tidemill.model.smollm2",
    }


def test_an_expired_lease_is_a_crash(database: Database, running_job: Create) -> None:
    job = running_job(4)
    chunk = must_claim(database, lease_seconds=0)
    tick(database)
    kept = chunks.load(database, chunk.id)
    assert kept is not None
    assert (kept.state, kept.crashes, kept.attempt, kept.owner) == ("pending", 1, 1, None)
    assert not chunks.renew_chunk(
        database, chunk.id, chunk.attempt, Counts(), lease_seconds=45
    ).still_mine
    let_waits_pass(database)
    must_claim(database, lease_seconds=0)
    tick(database)
    assert states(database, job) == ["split", "pending", "pending"]


def test_a_live_lease_is_left_alone(database: Database, running_job: Create) -> None:
    job = running_job(4)
    must_claim(database)
    tick(database)
    assert states(database, job) == ["leased"]


def test_a_job_is_finalized_only_when_nothing_is_live(
    database: Database, running_job: Create
) -> None:
    job = running_job(4, 4)
    commit(database, must_claim(database))
    tick(database)
    assert jobs.load(database, job.id).state == JobState.RUNNING  # one is pending
    chunk = must_claim(database)
    tick(database)
    assert jobs.load(database, job.id).state == JobState.RUNNING  # one is leased
    commit(database, chunk)
    tick(database)
    assert jobs.load(database, job.id).state == JobState.FINALIZING


def test_a_cancelled_job_waits_for_its_leased_chunks(
    database: Database, running_job: Create
) -> None:
    job = running_job(4, 4, 4)
    commit(database, must_claim(database))
    chunk = must_claim(database)
    jobs.request_stop(database, "acme", job.id)
    assert tick(database) == []
    assert states(database, job) == ["done", "leased", "cancelled"]
    assert jobs.load(database, job.id).state == JobState.RUNNING
    commit(database, chunk)
    tick(database)
    assert jobs.load(database, job.id).state == JobState.FINALIZING


def test_a_dead_workers_chunk_of_a_cancelled_job(database: Database, running_job: Create) -> None:
    job = running_job(4)
    must_claim(database, lease_seconds=0)
    jobs.request_stop(database, "acme", job.id)
    tick(database)
    assert states(database, job) == ["cancelled"]
    assert jobs.load(database, job.id).state == JobState.FINALIZING


def test_a_job_cancelled_before_its_plan(database: Database, new_job: Create) -> None:
    job = new_job()
    jobs.request_stop(database, "acme", job.id)
    assert planning.claim_plan(database, "p", lease_seconds=45) is None
    assert tick(database) == [Wakeup.finalize(job.id)]
    mine = finalizing.claim_finalize(database, "f", lease_seconds=45)
    assert mine is not None
    assert (mine.state, mine.n_lines, mine.attempts) == ("finalizing", None, 1)
    with pytest.raises(CountsDiffer):  # nothing of it was run
        finalizing.commit_final(database, job.id, mine.fin_epoch, Results(1, 6, None, None))
    ended = finalizing.commit_final(database, job.id, mine.fin_epoch, Results(0, 7, None, None))
    assert (ended.state, ended.n_lines, ended.n_cancelled) == ("cancelled", 7, 7)
    assert ended.cancelled_at is not None
    assert states(database, job) == ["cancelled"]
    assert jobs.progress(database, job.id).n_cancelled == 7


@pytest.mark.parametrize("planned", [False, True])
def test_jobs_expire(
    database: Database, new_job: Create, running_job: Create, planned: bool
) -> None:
    job = running_job(4, window_seconds=0.0) if planned else new_job(window_seconds=0.0)
    tick(database)
    expired = jobs.load(database, job.id)
    assert expired.cancel == "expired"
    assert (expired.state, expired.expired_at) == ("finalizing", None)
    assert expired.finalizing_at is not None


def test_a_first_expiry_is_claimable_at_once(database: Database, running_job: Create) -> None:
    running_job(4)
    dead = must_claim(database, lease_seconds=0)
    assert tick(database) == [Wakeup.drain("smollm2")]
    assert must_claim(database).id == dead.id


def test_an_expired_job_keeps_what_is_done(database: Database, running_job: Create) -> None:
    job = running_job(4, 4, 4)
    commit(database, must_claim(database))
    in_flight = must_claim(database)
    with database.write() as session:
        session.execute(update(Job).values(expires_at=0.0))
    tick(database)
    assert states(database, job) == ["done", "leased", "cancelled"]
    renewed = chunks.renew_chunk(
        database, in_flight.id, in_flight.attempt, Counts(), lease_seconds=45
    )
    assert renewed.stop == StopReason.EXPIRED
    commit(database, in_flight)
    tick(database)
    mine = finalizing.claim_finalize(database, "f", lease_seconds=45)
    assert mine is not None
    ended = finalizing.commit_final(database, job.id, mine.fin_epoch, Results(8, 4, None, None))
    assert (ended.state, ended.n_ok, ended.n_cancelled) == (JobState.EXPIRED, 8, 4)
    assert ended.expired_at is not None


def test_a_poison_line_rings_for_no_worker(database: Database, running_job: Create) -> None:
    running_job(1)
    for _ in range(3):
        must_claim(database, lease_seconds=0)
        tick(database)
        let_waits_pass(database)
    assert tick(database) == []
    assert len(chunks.poison_chunks(database, max_crashes=3)) == 1


def test_a_second_pass_changes_nothing(database: Database, running_job: Create) -> None:
    job = running_job(4, 4)
    must_claim(database, lease_seconds=0)
    first = tick(database)
    before = [chunk.model_dump() for chunk in every_chunk(database, job)]
    assert tick(database) == first
    assert [chunk.model_dump() for chunk in every_chunk(database, job)] == before


def test_an_embedded_home_takes_every_lease_back(
    database: Database, new_job: Create, running_job: Create
) -> None:
    running = running_job(4, 4)
    waiting = new_job()
    planning.claim_plan(database, "p", lease_seconds=45)
    must_claim(database)
    reclaim_embedded(database)
    assert states(database, running) == ["pending", "pending"]
    assert must_claim(database).crashes == 1
    again = planning.claim_plan(database, "p", lease_seconds=45)
    assert again is not None
    assert (again.id, again.plan_epoch, again.attempts) == (waiting.id, 2, 2)


def test_only_ended_jobs_are_collected_once(
    database: Database, running_job: Create, new_job: Create
) -> None:
    job = running_job(4)
    new_job()
    assert garbage.collectable_jobs(database, older_than=0) == []
    commit(database, must_claim(database))
    tick(database)
    mine = finalizing.claim_finalize(database, "f", lease_seconds=45)
    assert mine is not None
    finalizing.commit_final(database, job.id, mine.fin_epoch, Results(4, 0, None, None))
    assert garbage.collectable_jobs(database, older_than=3600) == []
    assert garbage.collectable_jobs(database, older_than=0) == [job.id]
    garbage.mark_collected(database, job.id)
    assert garbage.collectable_jobs(database, older_than=0) == []


def test_objects_without_a_file_are_told(
    database: Database, new_file: Callable[..., files.NewFile]
) -> None:
    kept, deleted = (files.insert(database, new_file()) for _ in range(2))
    files.soft_delete(database, "acme", deleted.id)
    asked = [kept.object_key, deleted.object_key, "files/acme/never"]
    assert garbage.unreferenced(database, asked) == {deleted.object_key, "files/acme/never"}
    assert garbage.unreferenced(database, []) == set()
