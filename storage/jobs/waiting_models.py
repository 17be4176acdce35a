"""Models that have work waiting: which is the most urgent, and what its jobs are told.

What a job waits for is kept in its ``waiting_for``. It is a note for the job's owner and no state:
nobody acts on it, but for the time since when it stands.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, not_, or_, select, update
from sqlmodel import col

from storage.database.connection import Database
from storage.database.states import ChunkState, JobState
from storage.database.tables import Chunk, Job
from storage.jobs.chunks import claimable, poisoned


@dataclass(frozen=True, slots=True)
class WaitingModel:
    """A model that has claimable chunks.

    Attributes:
        priority: the highest among their jobs.
        unnoted: whether one of these jobs has no note of what it waits for.
    """

    name: str
    priority: int
    unnoted: bool


def waiting_models(
    database: Database, models: Collection[str] | None, *, max_crashes: int
) -> list[WaitingModel]:
    """Those of ``models`` (``None``: of all) with claimable chunks, the most urgent first.

    The order is that of `storage.jobs.chunks.claim_chunk`: the jobs' priority, then their age.
    """
    oldest = func.min(col(Job.created_at))
    query = (
        claimable()
        .where(not_(poisoned(max_crashes)))
        .with_only_columns(
            col(Chunk.model),
            col(Job.priority),
            func.count().filter(col(Job.waiting_for).is_(None)),
        )
        .group_by(col(Chunk.model), col(Job.priority))
        .order_by(col(Job.priority).desc(), oldest, col(Chunk.model))
    )
    if models is not None:
        query = query.where(col(Chunk.model).in_(models))
    highest: dict[str, int] = {}
    unnoted: set[str] = set()
    with database.read() as session:
        for model, priority, count in session.execute(query):
            highest.setdefault(model, priority)
            if count:
                unnoted.add(model)
    return [WaitingModel(name, priority, name in unnoted) for name, priority in highest.items()]


@dataclass(frozen=True, slots=True)
class Wait:
    """Why a job waits. ``model`` is the model that it waits for, if it is one."""

    code: str
    message: str
    model: str | None = None


def note_wait(database: Database, wait: Wait) -> None:
    """Note the wait in every running job that has pending chunks of its model.

    Raises:
        DatabaseUnavailable: the database is away.
    """
    waiting = select(col(Chunk.job_id)).where(
        col(Chunk.model) == wait.model, col(Chunk.state) == ChunkState.PENDING
    )
    known = col(Job.waiting_for)
    with database.write() as session:
        values = _values(wait, database.now(session))
        session.execute(
            update(Job)
            .where(
                col(Job.state) == JobState.RUNNING,
                col(Job.id).in_(waiting),
                or_(known.is_(None), known["message"].as_string() != wait.message),
            )
            .values(waiting_for=values),
            execution_options={"synchronize_session": False},
        )


def clear_wait(database: Database, model: str) -> None:
    """The model's chunks run, or have ended: no running job waits for it any more.

    Raises:
        DatabaseUnavailable: the database is away.
    """
    with database.write() as session:
        session.execute(
            update(Job)
            .where(
                col(Job.state) == JobState.RUNNING,
                col(Job.waiting_for)["model"].as_string() == model,
            )
            .values(waiting_for=None),
            execution_options={"synchronize_session": False},
        )


def seconds_waited(database: Database, job: Job) -> float:
    """For how long a job that is not planned yet has waited for a model; 0 if it has not."""
    if not job.waiting_for or job.waiting_for["model"] is None:
        return 0.0
    with database.read() as session:
        return max(0.0, database.now(session) - float(job.waiting_for["since"]))


def wait_note(database: Database, job: Job, wait: Wait) -> dict[str, Any]:
    """``waiting_for`` of a job that is not planned yet: since when it waits for models is kept."""
    with database.read() as session:
        since = database.now(session)
    before = job.waiting_for
    if before and (before["model"] is None) == (wait.model is None):
        since = before["since"]
    return _values(wait, since)


def _values(wait: Wait, since: float) -> dict[str, Any]:
    return {
        "model": wait.model,
        "code": wait.code,
        "message": wait.message,
        "since": since,
    }
