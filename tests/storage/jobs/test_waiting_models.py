"""What jobs are told that they wait for: those of the model, until it runs."""

from collections.abc import Callable

import pytest

from moves import must_claim
from storage.database.connection import Database
from storage.database.tables import Job
from storage.jobs import jobs, planning, waiting_models
from storage.jobs.waiting_models import Wait

Create = Callable[..., Job]


def _note(database: Database, job: Job) -> str | None:
    found = jobs.load(database, job.id).waiting_for
    return str(found["message"]) if found else None


def test_the_jobs_of_a_model_are_told_until_it_runs(
    database: Database, running_job: Create
) -> None:
    mine, other = running_job(2, model="small"), running_job(1, model="large")
    waiting_models.note_wait(database, Wait("out_of_cache", "no memory", "small"))
    assert (_note(database, mine), _note(database, other)) == ("no memory", None)
    before = jobs.load(database, mine.id).waiting_for
    later = running_job(1, model="small")
    waiting_models.note_wait(database, Wait("out_of_cache", "no memory", "small"))
    assert jobs.load(database, mine.id).waiting_for == before, "since when is kept"
    assert _note(database, later) == "no memory"
    waiting_models.note_wait(database, Wait("engine_died", "no device", "small"))
    assert _note(database, mine) == "no device"
    waiting_models.clear_wait(database, "large")
    assert _note(database, mine) == "no device"
    waiting_models.clear_wait(database, "small")
    assert (_note(database, mine), _note(database, later)) == (None, None)


def test_it_is_known_which_jobs_were_not_told(database: Database, running_job: Create) -> None:
    running_job(1, model="small")
    (waiting,) = waiting_models.waiting_models(database, None, max_crashes=3)
    assert (waiting.name, waiting.unnoted) == ("small", True)
    waiting_models.note_wait(database, Wait("out_of_cache", "no memory", "small"))
    assert not waiting_models.waiting_models(database, None, max_crashes=3)[0].unnoted
    running_job(1, model="small", priority=5)
    assert [
        each.unnoted for each in waiting_models.waiting_models(database, None, max_crashes=3)
    ] == [True]


def test_leased_chunks_are_counted(database: Database, running_job: Create) -> None:
    job = running_job(2, 2)
    assert jobs.progress(database, job.id).running == 0
    must_claim(database)
    assert jobs.progress(database, job.id).running == 1


def test_a_job_to_plan_waits_from_its_first_model_on(database: Database, new_job: Create) -> None:
    job = new_job()
    assert waiting_models.seconds_waited(database, job) == 0
    for wait in (
        Wait("full", "no space"),
        Wait("model_not_found", "no small", "small"),
        Wait("model_not_found", "no large", "large"),
    ):
        claimed = planning.claim_plan(database, "me", lease_seconds=45, job_id=job.id)
        assert claimed is not None
        note = waiting_models.wait_note(database, claimed, wait)
        before = claimed.waiting_for
        if before and before["model"]:
            assert note["since"] == before["since"]
        planning.release_plan(database, job.id, claimed.plan_epoch, waiting_for=note)
    waited = jobs.load(database, job.id)
    assert _note(database, job) == "no large"
    assert waiting_models.seconds_waited(database, waited) == pytest.approx(0, abs=10)
    waited.waiting_for = {**(waited.waiting_for or {}), "since": waited.created_at - 60}
    assert waiting_models.seconds_waited(database, waited) == pytest.approx(60, abs=10)
