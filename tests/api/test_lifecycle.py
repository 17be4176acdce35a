"""What a client sees while workers move a job through its states; their part is played here."""

from collections.abc import Callable
from typing import Any

import pytest

from storage import chunks, finalizing, keys, planning, reconcile
from storage.chunks import Counts
from storage.files import NewFile
from storage.finalizing import Results
from storage.ids import new_id

LEASE = 45.0


@pytest.fixture
def service(serve_with: Callable[..., Any]) -> Any:
    return serve_with()


@pytest.fixture
def client(service: Any) -> Any:
    return service.openai()


def create(client: Any) -> Any:
    made = client.files.create(file=("in.jsonl", b"{}\n" * 10), purpose="batch")
    return client.batches.create(
        input_file_id=made.id, endpoint="/v1/chat/completions", completion_window="24h"
    ).id


def plan(service: Any, job_id: str) -> None:
    """Ten lines, in chunks of six and four."""
    job = planning.claim_plan(service.database, "planner", lease_seconds=LEASE, job_id=job_id)
    assert job is not None
    planned = [
        planning.PlannedChunk(a, b, "smollm2", keys.plan(job_id, 1, a, b), 1, 10, 100 * (b - a))
        for a, b in ((0, 6), (6, 10))
    ]
    planning.commit_plan(
        service.database,
        job_id,
        job.plan_epoch,
        planning.Plan(10, planned, "smollm2", {"prompt_tokens": 1000}, n_invalid=1),
    )


def claim(service: Any) -> Any:
    return chunks.claim_chunk(
        service.database, "worker", ["smollm2"], lease_seconds=LEASE, max_crashes=3
    )


def commit(service: Any, chunk: Any, counts: Counts) -> None:
    chunks.commit_chunk(
        service.database,
        chunk.id,
        chunk.attempt,
        part_key=keys.part(chunk.job_id, chunk.a, chunk.b, chunk.attempt),
        part_sha256="0" * 64,
        counts=counts,
    )


def finalize(service: Any, job_id: str, n_output: int, n_errors: int) -> None:
    reconcile.reconcile(service.database, max_crashes=3)
    job = finalizing.claim_finalize(service.database, "finalizer", lease_seconds=LEASE)
    assert job is not None

    def result(kind: Any) -> NewFile:
        key = keys.result(job_id, job.fin_epoch, kind)
        info = service.store.put(key, kind.encode())
        name = f"{job_id}_{kind}.jsonl"
        return NewFile(
            new_id("file"), "default", "batch_output", name, info.size, key, info.etag, info.sha256
        )

    results = Results(
        n_output,
        n_errors,
        result("output") if n_output else None,
        result("errors") if n_errors else None,
    )
    finalizing.commit_final(service.database, job_id, job.fin_epoch, results)


def counts(batch: Any) -> tuple[int, int, int]:
    found = batch.request_counts
    return found.total, found.completed, found.failed


def test_from_validating_to_completed(service: Any, client: Any) -> None:
    job_id = create(client)
    assert client.batches.retrieve(job_id).usage is None
    plan(service, job_id)
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

    first = claim(service)
    half = Counts(ok=2, err=1, prompt_tokens=300, cached_tokens=200, completion_tokens=30)
    chunks.renew_chunk(service.database, first.id, first.attempt, half, lease_seconds=LEASE)
    moving = client.batches.retrieve(job_id)
    assert counts(moving) == (10, 2, 1)
    progress = moving.tidemill["progress"]
    assert (progress["lines_done"], progress["lines_failed"]) == (3, 1)
    assert progress["tokens_per_second"] > 0
    assert progress["seconds_left"] is not None
    assert moving.usage.total_tokens == 330
    assert moving.usage.input_tokens_details.cached_tokens == 200

    commit(service, first, Counts(5, 1, 600, 400, 60))
    commit(service, claim(service), Counts(4, 0, 400, 100, 40))
    reconcile.reconcile(service.database, max_crashes=3)
    assert client.batches.retrieve(job_id).status == "finalizing"
    finalize(service, job_id, 9, 1)

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


def test_nothing_failed_and_everything_failed(service: Any, client: Any) -> None:
    for ok in (True, False):
        job_id = create(client)
        plan(service, job_id)
        for lines in (6, 4):
            commit(service, claim(service), Counts(lines * ok, lines * (not ok)))
        finalize(service, job_id, 10 * ok, 10 * (not ok))
        done = client.batches.retrieve(job_id)
        assert done.status == "completed"
        assert (done.output_file_id is not None, done.error_file_id is not None) == (ok, not ok)


def test_cancelled_half_way(service: Any, client: Any) -> None:
    job_id = create(client)
    plan(service, job_id)
    commit(service, claim(service), Counts(6, 0, 600, 0, 60))
    assert client.batches.cancel(job_id).status == "cancelling"
    finalize(service, job_id, 6, 4)
    done = client.batches.retrieve(job_id)
    assert (done.status, counts(done)) == ("cancelled", (10, 6, 4))
    assert done.cancelled_at is not None
    assert done.usage.total_tokens == 660
    assert done.tidemill["progress"]["lines_done"] == 6
    assert done.tidemill["progress"]["lines_cancelled"] == 4
    assert client.batches.cancel(job_id).status == "cancelled"
