from dataclasses import replace
from typing import Any

import pytest

from api.batch_view import batch_of
from storage.database.states import JobState, StopReason
from storage.database.tables import Job
from storage.jobs.jobs import JobView
from storage.jobs.outputs.views import OutputView
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


def test_an_output_that_was_given_up_says_why() -> None:
    problem = {"code": "output_not_written", "message": "m", "param": None, "line": None}
    output = OutputView("file:///out/", "parquet", 1, 2, 4, failure=problem)
    told = batch_of(view(JobState.COMPLETED), output).tidemill
    shown = told.model_dump()["output"]["problem"]
    assert shown == {"code": "output_not_written", "message": "m"}
    assert told.waiting_for is None


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


ESTIMATE: dict[str, Any] = {
    "rows": 10,
    "invalid_rows": 0,
    "duplicate_rows": 2,
    "prompt_tokens": 1_800,
    "duplicate_tokens": 100,
    "prefix_tokens": 300,
    "output_tokens": {
        "expected": 200,
        "low": 150,
        "high": 250,
        "most": 640,
        "source": "history",
        "rows_seen": 40,
    },
    "device_seconds": {
        "expected": 80.0,
        "low": 60.0,
        "high": 100.0,
        "source": "measured",
        "runs_seen": 3,
        "devices": ["cpu"],
    },
    "prompt_seconds": 20.0,
    "engines": 2,
    "start_seconds": 0.0,
    "ahead_seconds": 30.0,
    "volumes": [
        {
            "volume": volume,
            "rows": 10 * volume,
            "output_tokens": 200 * volume,
            "device_seconds": 80.0 * volume,
            "seconds": 40.0 * volume,
        }
        for volume in (1, 2, 3)
    ],
    "price_per_hour": 9.0,
}


def test_an_estimate_says_when_it_would_be_done_and_for_how_much() -> None:
    asked = view(
        JobState.COMPLETED,
        n_lines=0,
        options={"estimate": True},
        estimate=ESTIMATE,
        completed_at=1040.0,
        expires_at=1180.0,
    )
    batch = batch_of(asked)
    assert (batch.status, batch.request_counts.total) == ("completed", 0)
    found = batch.tidemill.estimate
    assert found is not None
    assert found.actual is None
    assert [volume.finish_at for volume in found.volumes] == [1110, 1150, 1190]
    assert [volume.meets_window for volume in found.volumes] == [True, True, False]
    assert [volume.cost for volume in found.volumes] == [0.2, 0.4, 0.6]
    free = batch_of(view(JobState.RUNNING, estimate=ESTIMATE | {"price_per_hour": None}))
    assert free.tidemill.estimate is not None
    assert free.tidemill.estimate.volumes[0].model_dump(exclude={"volume"}) == {
        "rows": 10,
        "output_tokens": 200,
        "device_seconds": 80.0,
        "seconds": 40.0,
        "finish_at": None,
        "meets_window": None,
        "cost": None,
    }


def test_what_came_stands_beside_what_was_expected() -> None:
    times: dict[str, Any] = {
        "in_progress_at": 1002.0,
        "finalizing_at": 1032.0,
        "completed_at": 1033.0,
    }
    ended = view(JobState.COMPLETED, estimate=ESTIMATE, **times)
    ended = replace(ended, progress=replace(ended.progress, engine_seconds=57.25))
    found = batch_of(ended).tidemill.estimate
    assert found is not None
    assert found.actual is not None
    assert found.actual.model_dump() == {
        "prompt_tokens": 900,
        "cached_tokens": 0,
        "output_tokens": 100,
        "device_seconds": 57.25,
        "seconds": 30.0,
    }
    assert batch_of(view(JobState.RUNNING)).tidemill.estimate is None


def test_time_left_comes_from_the_estimate_before_a_row_has_ended() -> None:
    begun = view(JobState.RUNNING, estimate=ESTIMATE, in_progress_at=1030.0)
    begun = replace(begun, progress=JobProgress())
    assert batch_of(begun).tidemill.progress.seconds_left == 30.0  # of 40, on two engines
    never = ESTIMATE | {"device_seconds": ESTIMATE["device_seconds"] | {"source": "roofline"}}
    unknown = replace(begun, job=view(JobState.RUNNING, estimate=never, in_progress_at=1030.0).job)
    assert batch_of(unknown).tidemill.progress.seconds_left is None
