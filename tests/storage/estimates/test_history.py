"""What the rows say of the past: what chunks took, and how long outputs of like jobs were."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import update
from sqlmodel import col

from moves import must_claim
from storage.database.connection import Database
from storage.database.tables import Job
from storage.estimates.engine_time import EngineTime
from storage.estimates.history import past_of, seconds_ahead
from storage.estimates.lengths import Seen
from storage.estimates.rates import Measured
from storage.estimates.work import Work
from storage.jobs import chunks
from storage.jobs.chunks import Counts

Running = Callable[..., Job]
GPU = "cuda:NVIDIA H200, bfloat16"
EXPECTED = {
    "rows": 4,
    "invalid_rows": 0,
    "output_tokens": {"most": 400},
    "device_seconds": {"expected": 100.0},
}


def run(database: Database, seconds: float, device: str | None = GPU) -> None:
    """Commit the next chunk of four lines, each with 20 prompt and 5 output tokens."""
    chunk = must_claim(database)
    chunks.commit_chunk(
        database,
        chunk.id,
        chunk.attempt,
        part_key="p",
        part_sha256="s",
        counts=Counts(4, 0, 80, 30, 20, generated_tokens=15),
        took=EngineTime(device, seconds, steps=7.0),
    )


def change(database: Database, job: Job, **values: Any) -> None:
    with database.write() as session:
        session.execute(update(Job).where(col(Job.id) == job.id).values(**values))


def test_chunks_are_measured_by_job_on_the_device_where_they_ran_last(
    database: Database, running_job: Running
) -> None:
    first = running_job(4, 4, 4)
    run(database, 2.0, device="cpu:old, int8")
    run(database, 3.0)
    run(database, 4.0)
    running_job(4, 4, 4)
    run(database, 5.0)
    run(database, 9.0, device=None)  # it was stopped
    run(database, 0.001)  # a blink
    past = past_of(database, first, "", ["smollm2", "other"], sample=first.id)
    found = past.models["smollm2"]
    assert found.device == GPU
    both, one = Measured(Work(100, 30, 14), 7.0), Measured(Work(50, 15, 7), 5.0)
    assert sorted(found.measured, key=lambda each: each.seconds) == [one, both]
    assert list(found.alike) == [both]
    assert past.models["other"].device is None


def test_jobs_are_alike_by_tenant_endpoint_and_what_their_rows_have_in_common(
    database: Database, running_job: Running
) -> None:
    ended = {"state": "completed", "n_ok": 4, "completion_tokens": 80, "likeness": "x"}
    like, other, foreign, live, asked = (
        running_job(4, tenant_id=tenant) for tenant in ("acme", "acme", "b", "acme", "acme")
    )
    change(database, like, **ended, estimate=EXPECTED)
    change(database, other, **ended | {"likeness": "y"})
    change(database, foreign, **ended)
    change(database, live, **ended | {"state": "running"})
    past = past_of(database, asked, "x", [], sample=None)
    assert list(past.alike) == [Seen(4, 80, 400)]
    assert not past_of(database, asked, "z", [], sample=None).alike


def test_what_runs_before_is_counted_by_what_is_left_of_it(
    database: Database, running_job: Running
) -> None:
    half = running_job(4, 4, priority=1)
    change(database, half, estimate=EXPECTED)
    run(database, 1.0)
    less_urgent, paused, unknown = running_job(4, priority=-1), running_job(4), running_job(4)
    change(database, less_urgent, estimate=EXPECTED)
    change(database, paused, estimate=EXPECTED, paused_at=1.0)
    assert seconds_ahead(database, unknown) == 50.0
