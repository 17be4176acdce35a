"""The planner's lease, and the one transaction that ends it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from storage.database.connection import Database
from storage.database.states import ChunkState, StopReason
from storage.database.tables import Job
from storage.errors import NotFound, PlanInvalid, StateConflict
from storage.jobs import chunks, jobs, planning
from storage.jobs.planning import Plan, Refusal
from storage.registry import files
from storage.registry.files import NewFile

Create = Callable[..., Job]
MakePlan = Callable[..., Plan]


def claim(database: Database, lease_seconds: float = 45, job_id: str | None = None) -> Job:
    job = planning.claim_plan(database, "planner", lease_seconds=lease_seconds, job_id=job_id)
    assert job is not None
    return job


def test_jobs_are_planned_by_priority_then_age(database: Database, new_job: Create) -> None:
    low, high, also_low = new_job(), new_job(priority=5), new_job()
    order = [claim(database).id for _ in range(3)]
    assert order == [high.id, low.id, also_low.id]
    assert planning.claim_plan(database, "planner", lease_seconds=45) is None


def test_one_job_can_be_asked_for(database: Database, new_job: Create) -> None:
    new_job()
    second = new_job()
    assert claim(database, job_id=second.id).id == second.id
    assert planning.claim_plan(database, "p", lease_seconds=45, job_id=second.id) is None


def test_a_lost_lease_goes_to_another_with_a_new_epoch(
    database: Database, new_job: Create, make_plan: MakePlan
) -> None:
    new_job()
    first = claim(database, lease_seconds=0)
    second = claim(database)
    assert (second.plan_epoch, second.attempts) == (first.plan_epoch + 1, 2)
    assert not planning.renew_plan(
        database, first.id, first.plan_epoch, lease_seconds=45
    ).still_mine
    with pytest.raises(StateConflict):
        planning.commit_plan(database, first.id, first.plan_epoch, make_plan())
    with pytest.raises(StateConflict):
        planning.fail_job(database, first.id, first.plan_epoch, Refusal([]))
    assert planning.renew_plan(database, second.id, second.plan_epoch, lease_seconds=45).still_mine
    assert planning.commit_plan(database, second.id, second.plan_epoch, make_plan())


def test_renewals_keep_the_lease_and_bring_the_stop(database: Database, new_job: Create) -> None:
    job = new_job()
    mine = claim(database, lease_seconds=0)
    renewed = planning.renew_plan(database, job.id, mine.plan_epoch, lease_seconds=45)
    assert renewed.still_mine
    assert not renewed.job_cancelled
    assert planning.claim_plan(database, "other", lease_seconds=45) is None
    jobs.request_stop(database, "acme", job.id)
    renewed = planning.renew_plan(database, job.id, mine.plan_epoch, lease_seconds=45)
    assert (renewed.still_mine, renewed.stop) == (True, StopReason.CANCELLED)


def test_a_plan_starts_its_job(
    database: Database, new_job: Create, make_plan: MakePlan, new_file: Callable[..., NewFile]
) -> None:
    job = new_job()
    report = new_file(purpose="batch_output")
    plan = make_plan(3, 4, n_invalid=1, errors=[{"code": "x", "line": 2}], report=report)
    running = planning.commit_plan(database, job.id, claim(database).plan_epoch, plan)
    assert (running.state, running.n_lines, running.model) == ("running", 7, "smollm2")
    assert (running.lease_exp, running.attempts) == (None, 0)
    assert running.in_progress_at is not None
    assert running.plan == {"prompt_tokens": 70}
    assert (running.n_invalid, running.errors) == (1, [{"code": "x", "line": 2}])
    assert files.get(database, "acme", report.id).purpose == "batch_output"
    made = list(chunks.iter_chunks(database, job.id, [ChunkState.PENDING]))
    assert [(c.a, c.b, c.first_line, c.last_line, c.plan_a) for c in made] == [
        (0, 3, 1, 3, 0),
        (3, 7, 4, 7, 3),
    ]


@pytest.mark.parametrize("fault", ["gap", "short", "empty"])
def test_a_plan_covers_every_line_once(
    database: Database, new_job: Create, make_plan: MakePlan, fault: str
) -> None:
    new_job()
    job = claim(database)
    whole = make_plan(2, 2, 2)
    plan = {
        "gap": Plan(6, [whole.chunks[0], whole.chunks[2]], None, {}),
        "short": Plan(7, whole.chunks, None, {}),
        "empty": Plan(1, [], None, {}),
    }[fault]
    with pytest.raises(PlanInvalid):
        planning.commit_plan(database, job.id, job.plan_epoch, plan)
    assert jobs.load(database, job.id).state == "validating"


def test_a_plan_of_a_stopped_job_is_refused(
    database: Database, new_job: Create, make_plan: MakePlan
) -> None:
    new_job()
    job = claim(database)
    jobs.request_stop(database, "acme", job.id)
    with pytest.raises(StateConflict):
        planning.commit_plan(database, job.id, job.plan_epoch, make_plan())
    with pytest.raises(NotFound):
        planning.commit_plan(database, "batch_missing", 1, make_plan())


def test_a_refused_job_says_why(
    database: Database, new_job: Create, new_file: Callable[..., NewFile]
) -> None:
    job = new_job()
    errors = [{"code": "invalid_json_line", "message": "…", "param": None, "line": 3}]
    report = new_file()
    failed = planning.fail_job(
        database, job.id, claim(database).plan_epoch, Refusal(errors, 200, 1000, report)
    )
    assert (failed.state, failed.errors, failed.n_invalid) == ("failed", errors, 200)
    assert failed.failed_at is not None
    assert failed.report_file_id == report.id
    assert files.get(database, "acme", report.id)


def test_a_lease_given_back_counts_nothing(database: Database, new_job: Create) -> None:
    job = new_job()
    for _ in range(3):
        mine = claim(database)
        assert mine.attempts == 1
        planning.release_plan(database, job.id, mine.plan_epoch)
    mine = claim(database)
    planning.release_plan(database, job.id, mine.plan_epoch, delay=60)
    assert planning.claim_plan(database, "p", lease_seconds=45) is None
    assert not planning.renew_plan(database, job.id, mine.plan_epoch, lease_seconds=45).still_mine


def test_commits_whose_answer_is_lost(lossy: Any, new_job: Create, make_plan: MakePlan) -> None:
    first, second = new_job(), new_job()
    epochs = [claim(lossy).plan_epoch for _ in range(2)]
    lossy.losses = 1
    assert planning.commit_plan(lossy, first.id, epochs[0], make_plan()).state == "running"
    lossy.losses = 1
    assert planning.fail_job(lossy, second.id, epochs[1], Refusal([])).state == "failed"
    assert len(list(chunks.iter_chunks(lossy, first.id, list(ChunkState)))) == 2


def test_an_estimate_ends_its_job_with_its_plan(
    lossy: Any, new_job: Create, make_plan: MakePlan
) -> None:
    job = new_job(options={"estimate": True})
    assert job.only_estimated
    epoch = claim(lossy).plan_epoch
    plan = replace(make_plan(), chunks=[], estimate={"rows": 8}, errors=[{"code": "x"}])
    lossy.losses = 1
    ended = planning.complete_estimate(lossy, job.id, epoch, plan)
    assert (ended.state, ended.n_lines, ended.estimate) == ("completed", 0, {"rows": 8})
    assert ended.completed_at is not None
    assert ended.in_progress_at is None
    assert ended.errors == [{"code": "x"}]
    assert list(chunks.iter_chunks(lossy, job.id, list(ChunkState))) == []
    with pytest.raises(StateConflict):
        planning.complete_estimate(lossy, job.id, epoch - 1, plan)
    with pytest.raises(StateConflict):
        planning.commit_plan(lossy, job.id, epoch, make_plan())
