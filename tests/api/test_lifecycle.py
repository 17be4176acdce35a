"""What a client sees while workers move a job through its states; their part is played here."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from openai.types import Batch
from sqlalchemy import update

from storage.database.tables import Job
from storage.jobs import chunks, jobs
from storage.jobs.chunks import Counts
from storage.jobs.reconcile import reconcile

LEASE = 45.0


@pytest.fixture
def service(serve_with: Callable[..., Any]) -> Any:
    return serve_with()


@pytest.fixture
def client(service: Any) -> Any:
    return service.openai()


@pytest.fixture
def http(service: Any) -> Any:
    return service.http()


def counts(batch: Any) -> tuple[int, int, int]:
    found = batch.request_counts
    return found.total, found.completed, found.failed


def test_from_validating_to_completed(workers: Any, client: Any) -> None:
    job_id = workers.create(client)
    assert client.batches.retrieve(job_id).usage is None
    workers.plan(job_id)
    running = client.batches.retrieve(job_id)
    assert (running.status, running.model, counts(running)) == (
        "in_progress",
        "smollm2",
        (10, 0, 0),
    )
    assert running.in_progress_at >= running.created_at
    assert running.tidemill["plan"] == {"prompt_tokens": 1000}
    assert running.tidemill["invalid_lines"] == 1
    assert running.tidemill["progress"]["seconds_left"] is None

    first = workers.claim()
    half = Counts(ok=2, err=1, prompt_tokens=300, cached_tokens=200, completion_tokens=30)
    chunks.renew_chunk(workers.service.database, first.id, first.attempt, half, lease_seconds=LEASE)
    moving = client.batches.retrieve(job_id)
    assert counts(moving) == (10, 2, 1)
    progress = moving.tidemill["progress"]
    assert (progress["lines_done"], progress["lines_failed"]) == (3, 1)
    assert progress["tokens_per_second"] > 0
    assert progress["seconds_left"] is not None
    assert moving.usage.total_tokens == 330
    assert moving.usage.input_tokens_details.cached_tokens == 200

    workers.commit(first, Counts(5, 1, 600, 400, 60))
    workers.commit(workers.claim(), Counts(4, 0, 400, 100, 40))
    reconcile(workers.service.database, max_crashes=3)
    assert client.batches.retrieve(job_id).status == "finalizing"
    workers.finalize(job_id, 9, 1)

    done = client.batches.retrieve(job_id)
    assert (done.status, counts(done)) == ("completed", (10, 9, 1))
    assert done.completed_at >= done.finalizing_at >= done.in_progress_at
    assert done.usage.model_dump() == {
        "input_tokens": 1000,
        "input_tokens_details": {"cached_tokens": 500},
        "output_tokens": 100,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 1100,
    }
    assert done.tidemill["progress"]["seconds_left"] == 0
    assert done.tidemill["timing"]["total_seconds"] > 0
    assert client.files.content(done.output_file_id).text == "output"
    assert client.files.content(done.error_file_id).text == "errors"
    assert client.files.retrieve(done.output_file_id).purpose == "batch_output"
    # A terminal batch is told the same for ever.
    assert client.batches.retrieve(job_id) == done
    assert client.batches.list().data[0] == done


def test_nothing_failed_and_everything_failed(workers: Any, client: Any) -> None:
    for ok in (True, False):
        job_id = workers.create(client)
        workers.plan(job_id)
        for lines in (6, 4):
            workers.commit(workers.claim(), Counts(lines * ok, lines * (not ok)))
        workers.finalize(job_id, 10 * ok, 10 * (not ok))
        done = client.batches.retrieve(job_id)
        assert done.status == "completed"
        assert (done.output_file_id is not None, done.error_file_id is not None) == (ok, not ok)


def test_cancelled_half_way(workers: Any, client: Any) -> None:
    job_id = workers.create(client)
    workers.plan(job_id)
    workers.commit(workers.claim(), Counts(6, 0, 600, 0, 60))
    assert client.batches.cancel(job_id).status == "cancelling"
    workers.finalize(job_id, 6, 4)
    done = client.batches.retrieve(job_id)
    assert (done.status, counts(done)) == ("cancelled", (10, 6, 4))
    assert done.cancelled_at is not None
    assert done.usage.total_tokens == 660
    assert done.tidemill["progress"]["lines_done"] == 6
    assert done.tidemill["progress"]["lines_cancelled"] == 4
    assert client.batches.cancel(job_id).status == "cancelled"


def test_expired_half_way(workers: Any, client: Any) -> None:
    job_id = workers.create(client)
    workers.plan(job_id)
    workers.commit(workers.claim(), Counts(6, 0, 600, 0, 60))
    with workers.service.database.write() as session:
        session.execute(update(Job).values(expires_at=time.time() - 1))
    workers.finalize(job_id, 6, 4)
    done = client.batches.retrieve(job_id)
    assert (done.status, counts(done)) == ("expired", (10, 6, 4))
    assert (done.expired_at is not None, done.cancelled_at) == (True, None)
    assert done.usage.total_tokens == 660
    assert done.output_file_id is not None
    assert done.error_file_id is not None


# Pause and resume


def test_paused_and_resumed(workers: Any, client: Any, http: Any) -> None:
    job_id = workers.create(client)
    assert client.batches.retrieve(job_id).tidemill["paused"] is False
    workers.plan(job_id)
    first = workers.claim()
    for _ in range(2):
        paused = http.post(f"/v1/batches/{job_id}/pause")
        assert paused.status_code == 200
        assert paused.json()["tidemill"]["paused"] is True
    # To a client of OpenAI's it is in progress, as it was.
    assert client.batches.retrieve(job_id).status == "in_progress"
    assert workers.claim() is None
    workers.commit(first, Counts(6, 0, 600, 0, 60))
    waiting = client.batches.retrieve(job_id)
    assert counts(waiting) == (10, 6, 0)
    assert waiting.tidemill["progress"]["seconds_left"] is None
    for _ in range(2):
        resumed = http.post(f"/v1/batches/{job_id}/resume").json()
        assert resumed["tidemill"]["paused"] is False
    workers.commit(workers.claim(), Counts(4))
    workers.finalize(job_id, 10, 0)
    for what in ("pause", "resume"):
        refused = http.post(f"/v1/batches/{job_id}/{what}")
        assert refused.status_code == 400
        error = refused.json()["error"]
        assert error["message"] == f"Cannot {what} a batch with status 'completed'."
        assert (
            error["code"]
            == {
                "pause": "batch_not_pausable",
                "resume": "batch_not_resumable",
            }[what]
        )


def test_a_paused_batch_is_cancelled(workers: Any, client: Any, http: Any) -> None:
    job_id = workers.create(client)
    workers.plan(job_id)
    paused = client.post(f"/batches/{job_id}/pause", cast_to=Batch)
    assert (paused.id, paused.tidemill["paused"]) == (job_id, True)
    stopping = client.batches.cancel(job_id)
    assert (stopping.status, stopping.tidemill["paused"]) == ("cancelling", False)
    assert http.post(f"/v1/batches/{job_id}/resume").status_code == 400
    workers.finalize(job_id, 0, 10)
    assert client.batches.retrieve(job_id).status == "cancelled"


def test_other_tenants_batches_stay_as_they_are(serve_with: Callable[..., Any]) -> None:
    service = serve_with(api_keys="one:a,two:b")
    client = service.openai("a")
    input_id = client.files.create(file=("in.jsonl", b"{}\n"), purpose="batch").id
    job_id = client.batches.create(
        input_file_id=input_id, endpoint="/v1/completions", completion_window="24h"
    ).id
    for what in ("pause", "resume", "retry", "cancel"):
        refused = service.http().post(
            f"/v1/batches/{job_id}/{what}", headers={"authorization": "Bearer b"}
        )
        assert refused.status_code == 404
    job = jobs.load(service.database, job_id)
    assert (job.cancel, job.paused_at) == (None, None)
