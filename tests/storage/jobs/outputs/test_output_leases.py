"""Rows of outputs and shards: what is due, who may write, and what the job waits for."""

from collections.abc import Callable
from typing import Any

import pytest

import moves
from storage.database.connection import Database
from storage.database.states import JobState, OutputState, ShardState
from storage.database.tables import Job, Output, Shard
from storage.errors import OutputError, PlanInvalid, StateConflict
from storage.jobs import finalizing, jobs, planning
from storage.jobs.finalizing import Results
from storage.jobs.outputs import leases
from storage.jobs.outputs.leases import ClaimedOutput, claim_output
from storage.jobs.outputs.planned import PlannedShard
from storage.jobs.outputs.views import view_outputs

OPTIONS = {"output": {"uri": "file:///out/", "format": "parquet", "passthrough": []}}
SHARDS = (PlannedShard(1, 4, 4, "k0"), PlannedShard(5, 8, 4, "k1"))
COLUMNS = ({"name": "custom_id", "type": "string"},)


@pytest.fixture
def job(database: Database, new_job: Callable[..., Job], make_plan: Callable[..., Any]) -> Job:
    """A running job with chunks of lines 1 to 4 and 5 to 8, and a shard of each."""
    created = new_job(options=OPTIONS)
    claimed = planning.claim_plan(database, "p", lease_seconds=45, job_id=created.id)
    assert claimed is not None
    plan = make_plan(4, 4, shards=SHARDS, columns=COLUMNS)
    return planning.commit_plan(database, created.id, claimed.plan_epoch, plan)


def claim(database: Database, lease_seconds: float = 45) -> ClaimedOutput | None:
    return claim_output(database, "writer", lease_seconds=lease_seconds)


def must_claim(database: Database, number: int | None, lease_seconds: float = 45) -> ClaimedOutput:
    claimed = claim(database, lease_seconds)
    assert claimed is not None
    assert (claimed.shard.number if claimed.shard else None) == number
    return claimed


def settle(database: Database, claimed: ClaimedOutput, sha256: str = "s") -> None:
    assert claimed.shard is not None
    leases.settle_shard(
        *(database, claimed.job.id, claimed.epoch, claimed.shard.number),
        file="part",
        size=3,
        sha256=sha256,
    )


def write(database: Database, number: int) -> None:
    claimed = must_claim(database, number)
    settle(database, claimed)
    leases.release_output(database, claimed.job.id, claimed.epoch)


def state(database: Database, job: Job) -> str:
    with database.read() as session:
        return session.get_one(Output, job.id).state


def shard_states(database: Database, job: Job) -> list[str]:
    with database.read() as session:
        return [session.get_one(Shard, (job.id, number)).state for number in range(len(SHARDS))]


def run(database: Database) -> None:
    while (chunk := moves.claim(database)) is not None:
        moves.commit(database, chunk)
    moves.tick(database)


def test_a_shard_is_due_once_its_chunks_are_settled_and_it_is_the_next(
    database: Database, job: Job
) -> None:
    assert claim(database) is None
    first = moves.must_claim(database)
    second = moves.must_claim(database)
    moves.commit(database, second)
    assert claim(database) is None, "the first one's chunk is leased"
    moves.commit(database, first)
    write(database, 0)
    write(database, 1)
    assert claim(database) is None
    view = view_outputs(database, [jobs.load(database, job.id)])[job.id]
    assert (view.shards_written, view.shards_total, view.rows_written) == (2, 2, 8)


def test_only_who_holds_the_lease_settles(database: Database, job: Job) -> None:
    run(database)
    late = must_claim(database, 0, lease_seconds=0)
    assert leases.renew_output(database, job.id, late.epoch, lease_seconds=0).still_mine
    now = must_claim(database, 0)
    assert claim(database) is None
    assert not leases.renew_output(database, job.id, late.epoch, lease_seconds=45).still_mine
    with pytest.raises(StateConflict):
        settle(database, late)
    leases.release_output(database, job.id, late.epoch)
    leases.close_output(database, job.id, late.epoch)
    assert not leases.give_up_output(database, job.id, late.epoch, {"code": "x"})
    assert (state(database, job), shard_states(database, job)) == ("open", ["waiting"] * 2)
    settle(database, now)
    settle(database, now)  # the reply was lost
    with pytest.raises(StateConflict):
        settle(database, now, sha256="other")
    assert shard_states(database, job) == [ShardState.WRITTEN, ShardState.WAITING]


def test_the_finalizer_waits_for_all_shards(database: Database, job: Job) -> None:
    run(database)
    assert jobs.load(database, job.id).state == JobState.FINALIZING
    write(database, 0)
    assert finalizing.claim_finalize(database, "f", lease_seconds=45) is None
    assert [wakeup.task for wakeup in moves.tick(database)] == []
    write(database, 1)
    claimed = finalizing.claim_finalize(database, "f", lease_seconds=45)
    assert claimed is not None
    finalizing.commit_final(database, job.id, claimed.fin_epoch, Results(8, 0, None, None))
    end = must_claim(database, None)
    leases.close_output(database, job.id, end.epoch)
    assert state(database, job) == OutputState.CLOSED
    assert claim(database) is None


def test_an_output_that_is_given_up_is_an_error_of_the_job(database: Database, job: Job) -> None:
    run(database)
    write(database, 0)
    claimed = must_claim(database, 1)
    problem = {"code": "output_not_written", "message": "m", "param": None, "line": None}
    leases.postpone_output(database, job.id, claimed.epoch, problem, delay=0)
    view = view_outputs(database, [jobs.load(database, job.id)])[job.id]
    assert view.problem is not None
    claimed = must_claim(database, 1)
    assert leases.seconds_failing(database, claimed) >= 0
    assert leases.give_up_output(database, job.id, claimed.epoch, problem)
    assert shard_states(database, job) == [ShardState.WRITTEN, ShardState.MISSING]
    view = view_outputs(database, [jobs.load(database, job.id)])[job.id]
    assert (view.problem, view.failure) == (None, problem)
    final = finalizing.claim_finalize(database, "f", lease_seconds=45)
    assert final is not None
    ended = finalizing.commit_final(database, job.id, final.fin_epoch, Results(8, 0, None, None))
    assert (ended.state, ended.errors) == (JobState.COMPLETED, [problem])
    assert claim(database) is None


def test_no_two_open_outputs_have_one_place(
    database: Database, job: Job, new_job: Callable[..., Job]
) -> None:
    with pytest.raises(OutputError) as caught:
        new_job(options=OPTIONS)
    assert caught.value.code == "output_in_use"
    assert len(jobs.list_jobs(database, "acme").items) == 1
    other = {"output": {**OPTIONS["output"], "uri": "file:///other/"}}
    assert new_job(options=other).options == other


@pytest.mark.parametrize(
    "shards",
    [
        (PlannedShard(1, 4, 4, "k"),),
        (PlannedShard(1, 4, 4, "k"), PlannedShard(4, 8, 4, "k")),
        (PlannedShard(5, 8, 4, "k"), PlannedShard(1, 4, 4, "k")),
    ],
)
def test_shards_must_be_the_lines_of_the_plan(
    database: Database,
    new_job: Callable[..., Job],
    make_plan: Callable[..., Any],
    shards: tuple[PlannedShard, ...],
) -> None:
    created = new_job(options=OPTIONS)
    claimed = planning.claim_plan(database, "p", lease_seconds=45, job_id=created.id)
    assert claimed is not None
    with pytest.raises(PlanInvalid):
        planning.commit_plan(database, created.id, 1, make_plan(4, 4, shards=shards))
    assert jobs.load(database, created.id).state == JobState.VALIDATING
