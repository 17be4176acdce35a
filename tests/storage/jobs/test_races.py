"""Races for chunks: between workers, reconcilers and those who cancel, on two connections."""

from collections.abc import Callable
from functools import partial

import pytest

import racing
from moves import claim, commit, every_chunk, expire_leases, must_claim, states, tick
from racing import Change, Race, won_and_lost
from storage.database.connection import Database
from storage.database.states import JobState, StopReason
from storage.database.tables import Chunk, Job
from storage.jobs import chunks, crashes, jobs
from storage.jobs.chunks import ChunkLease, Counts

Create = Callable[..., Job]


@pytest.fixture
def race(database_url: str) -> Race:
    return partial(racing.race, database_url)


def committing(chunk: Chunk) -> Change:
    return partial(commit, chunk=chunk)


def crash(chunk: Chunk) -> Change:
    return partial(crashes.crash_chunk, chunk_id=chunk.id, attempt=chunk.attempt)


def renew(*held: Chunk) -> Change:
    leases = [ChunkLease(chunk.id, chunk.attempt, Counts()) for chunk in held]
    return partial(chunks.renew_chunks, leases=leases, lease_seconds=45)


def stop(job: Job) -> Change:
    return partial(jobs.request_stop, tenant_id="acme", job_id=job.id)


def suspect(database: Database) -> Chunk:
    """A claimed chunk that crashed before: at the next crash it is split."""
    crash(must_claim(database))(database)
    return must_claim(database)


def state(database: Database, job: Job) -> str:
    return jobs.load(database, job.id).state


# Claims


def test_two_claims_never_meet(database: Database, running_job: Create, race: Race) -> None:
    running_job(4, 4)
    one, two = race(claim, claim)
    assert (one.a, two.a) == (0, 4)


def test_the_last_chunk_goes_to_one(database: Database, running_job: Create, race: Race) -> None:
    running_job(4)
    one, two = race(claim, claim)
    assert one is not None
    assert two is None


def test_a_claim_of_a_chunk_that_is_being_cancelled(
    database: Database, running_job: Create, race: Race
) -> None:
    job = running_job(4)
    stop(job)(database)
    _, claimed = race(tick, claim)
    assert claimed is None
    assert (states(database, job), state(database, job)) == (["cancelled"], "finalizing")


def test_a_cancel_of_a_chunk_that_is_being_claimed(
    database: Database, running_job: Create, race: Race
) -> None:
    job = running_job(4)
    claimed, _ = race(claim, stop(job))
    tick(database)
    assert (states(database, job), state(database, job)) == (["leased"], "running")
    (renewed,) = renew(claimed)(database).values()
    assert (renewed.still_mine, renewed.stop) == (True, StopReason.CANCELLED)


def test_pending_chunks_are_cancelled_while_one_is_claimed(
    database: Database, running_job: Create, race: Race
) -> None:
    """The claim saw the job before it was cancelled, and commits after."""
    job = running_job(4, 4)

    def stop_and_tick(database: Database) -> None:
        stop(job)(database)
        tick(database)

    claimed, _ = race(claim, stop_and_tick)
    assert states(database, job) == ["leased", "cancelled"]
    assert state(database, job) == JobState.RUNNING
    commit(database, claimed)
    tick(database)
    assert state(database, job) == JobState.FINALIZING


def test_a_claim_while_its_job_is_paused(
    database: Database, running_job: Create, race: Race
) -> None:
    job = running_job(4, 4)
    race(partial(jobs.pause, tenant_id="acme", job_id=job.id), claim)
    assert claim(database) is None
    assert jobs.load(database, job.id).paused_at is not None


# The ends of an attempt


def test_a_commit_and_a_split(database: Database, running_job: Create, race: Race) -> None:
    job = running_job(4)
    chunk = suspect(database)
    won_and_lost(race(crash(chunk), committing(chunk)))
    assert [(c.state, c.a, c.b) for c in every_chunk(database, job)] == [
        ("split", 0, 4),
        ("pending", 0, 2),
        ("pending", 2, 4),
    ]


def test_a_split_and_a_commit(database: Database, running_job: Create, race: Race) -> None:
    job = running_job(4)
    chunk = suspect(database)
    won_and_lost(race(committing(chunk), crash(chunk)))
    assert states(database, job) == ["done"]


def test_a_commit_and_a_crash_of_a_line(
    database: Database, running_job: Create, race: Race
) -> None:
    job = running_job(1)
    chunk = must_claim(database)
    won_and_lost(race(committing(chunk), crash(chunk)))
    (kept,) = every_chunk(database, job)
    assert (kept.state, kept.crashes) == ("done", 0)


def test_a_reaped_chunk_is_not_committed(
    database: Database, running_job: Create, race: Race
) -> None:
    job = running_job(4)
    chunk = must_claim(database)
    expire_leases(database)
    won_and_lost(race(tick, committing(chunk)))
    assert states(database, job) == ["pending"]


def test_a_chunk_that_is_being_committed_is_not_reaped(
    database: Database, running_job: Create, race: Race
) -> None:
    job = running_job(4)
    chunk = suspect(database)
    expire_leases(database)
    race(committing(chunk), tick)
    tick(database)
    assert (states(database, job), state(database, job)) == (["done"], "finalizing")


def test_a_late_renewal_saves_its_chunk(
    database: Database, running_job: Create, race: Race
) -> None:
    job = running_job(4)
    chunk = must_claim(database)
    expire_leases(database)
    race(renew(chunk), tick)
    assert states(database, job) == ["leased"]


def test_a_renewal_that_is_too_late_is_told(
    database: Database, running_job: Create, race: Race
) -> None:
    job = running_job(4, 4)
    dead, live = must_claim(database), must_claim(database)
    expire_leases(database)
    renew(live)(database)
    _, renewed = race(tick, renew(dead, live))
    assert [renewed[chunk.id].still_mine for chunk in (dead, live)] == [False, True]
    assert states(database, job) == ["pending", "leased"]


def test_two_reconcilers_count_a_crash_once(
    database: Database, running_job: Create, race: Race
) -> None:
    job = running_job(1)
    must_claim(database)
    expire_leases(database)
    race(tick, tick)
    assert [chunk.crashes for chunk in every_chunk(database, job)] == [1]


# From running to finalizing


def test_a_split_of_the_last_chunk_keeps_its_job_running(
    database: Database, running_job: Create, race: Race
) -> None:
    job = running_job(4)
    chunk = suspect(database)
    race(crash(chunk), tick)
    tick(database)
    assert (states(database, job), state(database, job)) == (
        ["split", "pending", "pending"],
        "running",
    )


def test_a_tick_beside_the_commit_of_the_last_chunk(
    database: Database, running_job: Create, race: Race
) -> None:
    job = running_job(4)
    race(committing(must_claim(database)), tick)
    tick(database)
    assert state(database, job) == JobState.FINALIZING


def test_a_stop_that_meets_the_start_of_finalizing(
    database: Database, running_job: Create, race: Race
) -> None:
    job = running_job(4)
    commit(database, must_claim(database))
    race(stop(job), tick)
    tick(database)
    kept = jobs.load(database, job.id)
    assert (kept.state, kept.cancel) == (JobState.FINALIZING, StopReason.CANCELLED)


def test_a_pause_that_meets_the_start_of_finalizing(
    database: Database, running_job: Create, race: Race
) -> None:
    job = running_job(4)
    commit(database, must_claim(database))
    pause = partial(jobs.pause, tenant_id="acme", job_id=job.id)
    won_and_lost(race(tick, pause))
    assert jobs.load(database, job.id).paused_at is None
