"""Jobs as their owners see them."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from storage.database.connection import Database
from storage.database.states import JobState, StopReason
from storage.database.tables import Chunk, Job
from storage.errors import (
    IdempotencyMismatch,
    InputGone,
    NotFound,
    StateConflict,
)
from storage.jobs import chunks, finalizing, jobs, planning
from storage.jobs.chunks import Counts
from storage.jobs.finalizing import Results
from storage.jobs.planning import Plan
from storage.jobs.progress import JobProgress
from storage.jobs.reconcile import reconcile
from storage.registry import files
from storage.registry.files import NewFile

Create = Callable[..., Job]


def test_a_new_job_waits_to_be_planned(database: Database, new_job: Create) -> None:
    job = new_job(meta={"team": "a"}, options={"on_invalid": "skip"}, priority=3)
    kept = jobs.get(database, "acme", job.id)
    assert (kept.state, kept.meta, kept.options) == ("validating", {"team": "a"}, job.options)
    assert kept.expires_at == pytest.approx(kept.created_at + 86_400, abs=1)
    assert (kept.n_lines, kept.errors, kept.plan, kept.cancel) == (None, None, None, None)
    assert jobs.load(database, job.id).priority == 3


def test_jobs_belong_to_their_tenant(database: Database, new_job: Create) -> None:
    job = new_job()
    for use in (jobs.get, jobs.view, jobs.request_stop):
        with pytest.raises(NotFound):
            use(database, "other", job.id)
    with pytest.raises(NotFound):
        jobs.load(database, "batch_missing")
    assert jobs.list_jobs(database, "other").items == []


def test_an_idempotency_key_gives_the_same_job(
    database: Database, new_file: Callable[..., NewFile]
) -> None:
    def create(idem_hash: str, tenant: str = "acme") -> jobs.Created:
        file = files.insert(database, new_file())
        new = jobs.NewJob(tenant, "/v1/x", "24h", 60, file, idem_key="k", idem_hash=idem_hash)
        return jobs.create_job(database, new)

    first = create("h")
    again = create("h")
    assert (first.new, again.new) == (True, False)
    assert again.job.id == first.job.id
    with pytest.raises(IdempotencyMismatch):
        create("another")
    assert create("another", tenant="other").new


def test_a_request_sent_again_is_found_without_its_input(
    database: Database, new_file: Callable[..., NewFile], make_plan: Callable[..., Plan]
) -> None:
    file = files.insert(database, new_file())
    new = jobs.NewJob("acme", "/v1/x", "24h", 60, file, idem_key="k", idem_hash="h")
    made = jobs.create_job(database, new).job
    claimed = planning.claim_plan(database, "p", lease_seconds=45)
    assert claimed is not None
    planning.commit_plan(database, made.id, claimed.plan_epoch, make_plan())
    files.soft_delete(database, "acme", file.id)
    found = jobs.find_created(database, "acme", "k", "h")
    assert found is not None
    assert found.id == made.id
    again = jobs.create_job(database, new)  # who has not found it, as it was just being created
    assert (again.job.id, again.new) == (made.id, False)
    with pytest.raises(InputGone):
        jobs.create_job(database, replace(new, idem_key="other"))
    with pytest.raises(IdempotencyMismatch):
        jobs.find_created(database, "acme", "k", "another")
    assert jobs.find_created(database, "other", "k", "h") is None
    assert jobs.find_created(database, "acme", "new", "h") is None
    assert jobs.find_created(database, "acme", None, None) is None


def test_an_idempotency_key_under_concurrency(
    database: Database, new_file: Callable[..., NewFile]
) -> None:
    file = files.insert(database, new_file())
    new = jobs.NewJob("acme", "/v1/x", "24h", 60, file, idem_key="k", idem_hash="h")
    created: list[jobs.Created] = []
    barrier = threading.Barrier(8)

    def create() -> None:
        barrier.wait()
        created.append(jobs.create_job(database, new))

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({each.job.id for each in created}) == 1
    assert [each.new for each in created].count(True) == 1
    assert len(created) == 8


def test_a_create_whose_answer_is_lost_creates_one_job(
    lossy: Any, new_file: Callable[..., NewFile]
) -> None:
    file = files.insert(lossy, new_file())
    lossy.losses = 1
    created = jobs.create_job(lossy, jobs.NewJob("acme", "/v1/x", "24h", 60, file))
    assert created.new
    assert [view.job.id for view in jobs.list_jobs(lossy, "acme").items] == [created.job.id]


def test_lists_are_newest_first_in_pages(database: Database, new_job: Create) -> None:
    ids = [new_job().id for _ in range(5)][::-1]
    first = jobs.list_jobs(database, "acme", limit=2)
    assert [view.job.id for view in first.items] == ids[:2]
    assert first.has_more
    second = jobs.list_jobs(database, "acme", limit=2, after=ids[1])
    assert [view.job.id for view in second.items] == ids[2:4]
    last = jobs.list_jobs(database, "acme", limit=2, after=ids[3])
    assert ([view.job.id for view in last.items], last.has_more) == (ids[4:], False)
    with pytest.raises(NotFound):
        jobs.list_jobs(database, "acme", after="batch_missing")
    with pytest.raises(NotFound):
        jobs.list_jobs(database, "other", after=ids[0])


def test_progress_sums_committed_and_running_chunks(
    database: Database, running_job: Create
) -> None:
    job = running_job(4, 4, 2)
    assert jobs.progress(database, job.id) == JobProgress(planned_tokens=100)
    first = claim(database)
    chunks.commit_chunk(
        database,
        first.id,
        first.attempt,
        part_key="p",
        part_sha256="s",
        counts=Counts(3, 1, prompt_tokens=40, cached_tokens=30, completion_tokens=8),
    )
    second = claim(database)
    running = Counts(1, 0, prompt_tokens=10, completion_tokens=2)
    chunks.renew_chunk(database, second.id, second.attempt, running, lease_seconds=45)
    progress = jobs.view(database, "acme", job.id).progress
    assert progress == JobProgress(4, 1, 0, 50, 30, 10, planned_tokens=100, running=1)
    assert progress.done == 5
    chunks.release_chunk(database, second.id, second.attempt)
    assert jobs.progress(database, job.id).done == 4
    assert jobs.list_jobs(database, "acme").items[0].progress.done == 4


def claim(database: Database) -> Chunk:
    chunk = chunks.claim_chunk(database, "w", ["smollm2"], lease_seconds=45, max_crashes=3)
    assert chunk is not None
    return chunk


def test_progress_of_a_job_without_chunks(database: Database, new_job: Create) -> None:
    assert jobs.progress(database, new_job().id) == JobProgress()
    assert jobs.progress(database, "batch_missing") == JobProgress()


def test_a_stop_is_asked_for_once(database: Database, running_job: Create) -> None:
    job = running_job()
    stopped = jobs.request_stop(database, "acme", job.id)
    assert stopped.cancel == StopReason.CANCELLED
    assert stopped.cancelling_at is not None
    again = jobs.request_stop(database, "acme", job.id)
    assert again.cancelling_at == stopped.cancelling_at


def test_a_job_that_ended_cannot_be_stopped(database: Database, new_job: Create) -> None:
    job = new_job()
    claimed = planning.claim_plan(database, "p", lease_seconds=45)
    assert claimed is not None
    planning.fail_job(database, job.id, claimed.plan_epoch, planning.Refusal([]))
    with pytest.raises(StateConflict):
        jobs.request_stop(database, "acme", job.id)


def test_cancelling_a_cancelled_job_is_harmless(database: Database, new_job: Create) -> None:
    job = new_job()
    jobs.request_stop(database, "acme", job.id)
    assert jobs.request_stop(database, "acme", job.id).state == JobState.VALIDATING
    reconcile(database, max_crashes=3)
    mine = finalizing.claim_finalize(database, "f", lease_seconds=45)
    assert mine is not None
    finalizing.commit_final(database, job.id, mine.fin_epoch, Results(0, 3, None, None))
    assert jobs.request_stop(database, "acme", job.id).state == JobState.CANCELLED
