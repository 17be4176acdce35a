"""The states of a job and of a chunk, and which may follow which.

Groups are derived from the transition tables, so a new state cannot be forgotten in one of them.
Every change is an ``UPDATE … WHERE state = <expected>``, after `check_transition`; a lost race is a
`storage.errors.StateConflict`.
"""

from collections.abc import Mapping
from enum import StrEnum

from storage.errors import IllegalTransition


class JobState(StrEnum):
    VALIDATING = "validating"
    RUNNING = "running"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class ChunkState(StrEnum):
    PENDING = "pending"
    LEASED = "leased"
    DONE = "done"
    SPLIT = "split"
    CANCELLED = "cancelled"


class StopReason(StrEnum):
    """Why a job is asked to end before all of its lines are done; kept in ``job.cancel``."""

    CANCELLED = "cancelled"
    EXPIRED = "expired"
    BROKEN = "broken"  # its plan cannot be read any more; it ends as failed


class OutputState(StrEnum):
    """Of the results in a caller's own place; only an open one changes."""

    OPEN = "open"
    CLOSED = "closed"  # the manifest says how the job ended
    FAILED = "failed"  # given up: the place could not be written for too long


class ShardState(StrEnum):
    """Of one file of these results; only a waiting one changes."""

    WAITING = "waiting"
    WRITTEN = "written"
    MISSING = "missing"  # it will never be written


JOB_TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    # Straight to finalizing: one that is stopped before it is planned. To completed: an estimate.
    JobState.VALIDATING: frozenset(
        {JobState.RUNNING, JobState.FINALIZING, JobState.FAILED, JobState.COMPLETED}
    ),
    JobState.RUNNING: frozenset({JobState.FINALIZING}),
    JobState.FINALIZING: frozenset(
        {JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED}
    ),
    JobState.COMPLETED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
    JobState.EXPIRED: frozenset(),
}

CHUNK_TRANSITIONS: Mapping[ChunkState, frozenset[ChunkState]] = {
    ChunkState.PENDING: frozenset({ChunkState.LEASED, ChunkState.CANCELLED}),
    ChunkState.LEASED: frozenset({ChunkState.DONE, ChunkState.PENDING, ChunkState.SPLIT}),
    ChunkState.DONE: frozenset(),
    ChunkState.SPLIT: frozenset(),
    ChunkState.CANCELLED: frozenset(),
}

TERMINAL_JOB_STATES = frozenset(s for s, after in JOB_TRANSITIONS.items() if not after)
LIVE_JOB_STATES = frozenset(JobState) - TERMINAL_JOB_STATES
# While chunks remain to be run, a job can expire and can be paused.
OPEN_JOB_STATES = LIVE_JOB_STATES - {JobState.FINALIZING}
# A job in one of these has results, and its failed lines can be run again.
RETRYABLE_JOB_STATES = TERMINAL_JOB_STATES - {JobState.FAILED}
TERMINAL_CHUNK_STATES = frozenset(s for s, after in CHUNK_TRANSITIONS.items() if not after)
LIVE_CHUNK_STATES = frozenset(ChunkState) - TERMINAL_CHUNK_STATES


def check_transition(before: JobState | ChunkState, after: JobState | ChunkState) -> None:
    """Raise `IllegalTransition` unless ``after`` may directly follow ``before``."""
    table: Mapping[JobState, frozenset[JobState]] | Mapping[ChunkState, frozenset[ChunkState]]
    table = JOB_TRANSITIONS if isinstance(before, JobState) else CHUNK_TRANSITIONS
    if after not in table[before]:  # type: ignore[index]
        raise IllegalTransition(f"{type(before).__name__}: {before} cannot become {after}.")
