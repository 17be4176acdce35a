"""Races for jobs: between planners, finalizers and those who cancel, on two connections."""

from collections.abc import Callable
from functools import partial

import pytest

import racing
from moves import commit, every_chunk, expire_leases, must_claim, states, tick
from racing import Change, Race, won_and_lost
from storage.database.connection import Database
from storage.database.states import JobState, StopReason
from storage.database.tables import Job
from storage.errors import StateConflict
from storage.jobs import finalizing, jobs, planning
from storage.jobs.finalizing import Results
from storage.jobs.planning import Plan, Refusal

Create = Callable[..., Job]


@pytest.fixture
def race(database_url: str) -> Race:
    return partial(racing.race, database_url)


def stop(job: Job) -> Change:
    return partial(jobs.request_stop, tenant_id="acme", job_id=job.id)


def state(database: Database, job: Job) -> str:
    return jobs.load(database, job.id).state


# Planners


def claim_plan(database: Database) -> Job | None:
    return planning.claim_plan(database, "p", lease_seconds=45)


def must_claim_plan(database: Database) -> Job:
    job = claim_plan(database)
    assert job is not None
    return job


def commit_plan(job: Job, plan: Plan) -> Change:
    return partial(planning.commit_plan, job_id=job.id, epoch=job.plan_epoch, plan=plan)


def refuse(job: Job, refusal: Refusal) -> Change:
    return partial(planning.fail_job, job_id=job.id, epoch=job.plan_epoch, refusal=refusal)


def test_a_job_is_planned_by_one(database: Database, new_job: Create, race: Race) -> None:
    new_job()
    one, two = race(claim_plan, claim_plan)
    assert (one.plan_epoch, two) == (1, None)


def test_a_plan_of_a_lost_epoch(
    database: Database, new_job: Create, make_plan: Callable[..., Plan], race: Race
) -> None:
    new_job()
    slow = must_claim_plan(database)
    expire_leases(database)
    new, late = race(claim_plan, commit_plan(slow, make_plan(4)))
    assert isinstance(late, StateConflict)
    assert every_chunk(database, slow) == []
    commit_plan(new, make_plan(2, 2))(database)
    assert states(database, slow) == ["pending", "pending"]


def test_a_plan_that_is_being_committed_is_not_claimed(
    database: Database, new_job: Create, make_plan: Callable[..., Plan], race: Race
) -> None:
    new_job()
    job = must_claim_plan(database)
    expire_leases(database)
    _, again = race(commit_plan(job, make_plan(4)), claim_plan)
    assert again is None
    assert (states(database, job), state(database, job)) == (["pending"], "running")


def test_a_stop_beats_a_plan(
    database: Database, new_job: Create, make_plan: Callable[..., Plan], race: Race
) -> None:
    new_job()
    job = must_claim_plan(database)
    won_and_lost(race(stop(job), commit_plan(job, make_plan(4))))
    tick(database)
    assert (every_chunk(database, job), state(database, job)) == ([], "finalizing")


def test_a_stop_beats_a_refusal(database: Database, new_job: Create, race: Race) -> None:
    new_job()
    job = must_claim_plan(database)
    refusal = Refusal([{"code": "empty_batch"}])
    won_and_lost(race(stop(job), refuse(job, refusal)))
    tick(database)
    assert state(database, job) == "finalizing"
    found = jobs.load(database, job.id)
    assert (found.cancel, found.errors, found.failed_at) == (StopReason.CANCELLED, None, None)


def test_a_refusal_beats_a_stop(database: Database, new_job: Create, race: Race) -> None:
    new_job()
    job = must_claim_plan(database)
    won_and_lost(race(refuse(job, Refusal([])), stop(job)))
    assert (state(database, job), jobs.load(database, job.id).cancel) == ("failed", None)


def test_a_plan_beats_a_stop(
    database: Database, new_job: Create, make_plan: Callable[..., Plan], race: Race
) -> None:
    new_job()
    job = must_claim_plan(database)
    _, stopped = race(commit_plan(job, make_plan(4)), stop(job))
    assert (stopped.state, stopped.cancel) == (JobState.RUNNING, StopReason.CANCELLED)
    tick(database)
    assert (states(database, job), state(database, job)) == (["cancelled"], "finalizing")


def test_a_job_that_expires_while_its_plan_is_committed(
    database: Database, new_job: Create, make_plan: Callable[..., Plan], race: Race
) -> None:
    new_job(window_seconds=0.0)
    job = must_claim_plan(database)
    race(commit_plan(job, make_plan(4, 4)), tick)
    tick(database)
    assert (states(database, job), state(database, job)) == (["cancelled"] * 2, "finalizing")


def test_a_refusal_of_a_lost_epoch(database: Database, new_job: Create, race: Race) -> None:
    new_job()
    slow = must_claim_plan(database)
    expire_leases(database)
    won_and_lost(race(claim_plan, refuse(slow, Refusal([]))))
    assert state(database, slow) == JobState.VALIDATING


# Finalizers


def finalizing_job(database: Database, running_job: Create) -> Job:
    job = running_job(4)
    commit(database, must_claim(database))
    tick(database)
    return job


def claim_final(database: Database) -> Job | None:
    return finalizing.claim_finalize(database, "f", lease_seconds=45)


def commit_final(job: Job, n_output: int = 4) -> Change:
    results = Results(n_output, 0, None, None)
    return partial(finalizing.commit_final, job_id=job.id, epoch=job.fin_epoch, results=results)


def test_results_of_a_lost_epoch(database: Database, running_job: Create, race: Race) -> None:
    job = finalizing_job(database, running_job)
    slow = claim_final(database)
    assert slow is not None
    expire_leases(database)
    # It is told that it is too late, and not that its counts are wrong.
    new, late = race(claim_final, commit_final(slow, n_output=3))
    assert isinstance(late, StateConflict)
    assert (new.fin_epoch, state(database, job)) == (2, JobState.FINALIZING)
    assert commit_final(new)(database).state == JobState.COMPLETED


def test_results_that_are_being_published_are_not_made_again(
    database: Database, running_job: Create, race: Race
) -> None:
    finalizing_job(database, running_job)
    job = claim_final(database)
    assert job is not None
    expire_leases(database)
    ended, again = race(commit_final(job), claim_final)
    assert (ended.state, again) == (JobState.COMPLETED, None)


def test_a_cancel_that_comes_after_the_results(
    database: Database, running_job: Create, race: Race
) -> None:
    finalizing_job(database, running_job)
    job = claim_final(database)
    assert job is not None
    won_and_lost(race(commit_final(job), stop(job)))
    assert jobs.load(database, job.id).cancel is None


def test_a_cancel_that_comes_before_the_results(
    database: Database, running_job: Create, race: Race
) -> None:
    finalizing_job(database, running_job)
    job = claim_final(database)
    assert job is not None
    _, ended = race(stop(job), commit_final(job))
    assert (ended.state, ended.n_ok) == (JobState.CANCELLED, 4)
