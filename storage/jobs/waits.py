"""What keeps a job from going on, for its owner to read: kept in the job's ``waiting_for``.

It is a note and no state: nobody acts on it, but for the time since when it stands.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import or_, select, update
from sqlmodel import col

from storage.database.connection import Database
from storage.database.states import ChunkState, JobState
from storage.database.tables import Chunk, Job


@dataclass(frozen=True, slots=True)
class Wait:
    """Why a job waits. ``model`` is the model that it waits for, if it is one."""

    code: str
    message: str
    model: str | None = None


def note(database: Database, wait: Wait) -> None:
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


def clear(database: Database, model: str) -> None:
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


def begun(database: Database, job: Job, wait: Wait) -> dict[str, Any]:
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
