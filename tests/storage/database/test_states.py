"""The transition tables."""

import pytest

from storage.database.states import (
    CHUNK_TRANSITIONS,
    JOB_TRANSITIONS,
    LIVE_CHUNK_STATES,
    TERMINAL_CHUNK_STATES,
    TERMINAL_JOB_STATES,
    ChunkState,
    JobState,
    check_transition,
)
from storage.errors import IllegalTransition


def test_every_state_has_its_row() -> None:
    assert set(JOB_TRANSITIONS) == set(JobState)
    assert set(CHUNK_TRANSITIONS) == set(ChunkState)


def test_groups_follow_from_the_tables() -> None:
    assert {"completed", "failed", "cancelled", "expired"} == TERMINAL_JOB_STATES
    assert {"done", "split", "cancelled"} == TERMINAL_CHUNK_STATES
    assert {"pending", "leased"} == LIVE_CHUNK_STATES


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (JobState.COMPLETED, JobState.RUNNING),
        (JobState.VALIDATING, JobState.CANCELLED),
        (JobState.RUNNING, JobState.CANCELLED),
        (ChunkState.DONE, ChunkState.PENDING),
        (ChunkState.PENDING, ChunkState.DONE),
        (ChunkState.LEASED, ChunkState.CANCELLED),
    ],
)
def test_what_can_never_happen(before: JobState | ChunkState, after: JobState | ChunkState) -> None:
    with pytest.raises(IllegalTransition):
        check_transition(before, after)


def test_what_happens() -> None:
    check_transition(JobState.VALIDATING, JobState.RUNNING)
    check_transition(ChunkState.LEASED, ChunkState.SPLIT)
