from typing import Any

import pytest

from api.batch_view import batch_of
from storage.database.states import JobState, StopReason
from storage.database.tables import Job
from storage.jobs.jobs import JobView
from storage.jobs.progress import JobProgress


def view(state: JobState, running: int = 0, **values: Any) -> JobView:
    base: dict[str, Any] = {
        "id": "batch_1",
        "tenant_id": "default",
        "state": state,
        "endpoint": "/v1/completions",
        "completion_window": "24h",
        "input_file_id": "file-1",
        "input_key": "k",
        "input_etag": "e",
        "input_sha256": "s",
        "created_at": 1000.25,
        "expires_at": 87_400.25,
        "n_lines": 10,
    }
    done = JobProgress(4, 1, prompt_tokens=900, completion_tokens=100, running=running)
    return JobView(Job(**{**base, **values}), done, now=1040.0)


@pytest.mark.parametrize(
    ("state", "cancel", "status"),
    [
        (JobState.VALIDATING, None, "validating"),
        (JobState.RUNNING, None, "in_progress"),
        (JobState.FINALIZING, None, "finalizing"),
        (JobState.COMPLETED, None, "completed"),
        (JobState.FAILED, None, "failed"),
        (JobState.VALIDATING, StopReason.CANCELLED, "cancelling"),
        (JobState.RUNNING, StopReason.CANCELLED, "cancelling"),
        (JobState.FINALIZING, StopReason.CANCELLED, "cancelling"),
        (JobState.CANCELLED, StopReason.CANCELLED, "cancelled"),
        (JobState.RUNNING, StopReason.EXPIRED, "in_progress"),
        (JobState.FINALIZING, StopReason.EXPIRED, "finalizing"),
        (JobState.EXPIRED, StopReason.EXPIRED, "expired"),
    ],
)
def test_every_state_has_its_status(state: JobState, cancel: str | None, status: str) -> None:
    assert batch_of(view(state, cancel=cancel)).status == status


def test_rates_come_from_the_time_since_it_runs() -> None:
    progress = batch_of(view(JobState.RUNNING, in_progress_at=1020.0)).tidemill.progress
    assert progress.tokens_per_second == 50.0  # 1,000 tokens in 20 seconds
    assert progress.seconds_left == 20.0  # five lines took 20 seconds, five are left


def test_a_batch_that_is_stopping_names_no_time_left() -> None:
    stopping = view(JobState.RUNNING, in_progress_at=1020.0, cancel=StopReason.CANCELLED)
    assert batch_of(stopping).tidemill.progress.seconds_left is None


def test_timing_of_each_phase() -> None:
    done = view(
        JobState.COMPLETED, in_progress_at=1002.25, finalizing_at=1012.25, completed_at=1013.5
    )
    timing = batch_of(done).tidemill.timing
    assert timing.model_dump() == {
        "validating_seconds": 2.0,
        "in_progress_seconds": 10.0,
        "finalizing_seconds": 1.25,
        "total_seconds": 13.25,
    }
    assert batch_of(done).tidemill.progress.tokens_per_second == 100.0
    refused = batch_of(view(JobState.FAILED, failed_at=1001.25)).tidemill.timing
    assert (refused.validating_seconds, refused.in_progress_seconds) == (1.0, None)


@pytest.mark.parametrize(
    ("state", "running", "values", "told"),
    [
        (JobState.VALIDATING, 0, {}, True),
        (JobState.RUNNING, 0, {}, True),
        (JobState.VALIDATING, 0, {"lease_owner": "a worker that plans it"}, False),
        (JobState.RUNNING, 1, {}, False),
        (JobState.RUNNING, 0, {"paused_at": 1010.0}, False),
        (JobState.RUNNING, 0, {"cancel": StopReason.CANCELLED}, False),
        (JobState.FINALIZING, 0, {}, False),
        (JobState.RUNNING, 0, {"waiting_for": None}, False),
    ],
)
def test_what_a_batch_waits_for_is_told_while_nobody_works_on_it(
    state: JobState, running: int, values: dict[str, Any], told: bool
) -> None:
    note = {"model": "m", "code": "out_of_cache", "message": "no memory", "since": 1005.5}
    batch = batch_of(view(state, running, **({"waiting_for": note} | values)))
    found = batch.model_dump()["tidemill"]["waiting_for"]
    assert found == (note | {"since": 1005} if told else None)
