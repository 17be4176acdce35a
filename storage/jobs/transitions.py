"""How a state changes: ``UPDATE … WHERE state = <expected> AND …``; no row means a lost race."""

from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, update
from sqlalchemy.sql.dml import ReturningUpdate
from sqlmodel import Session, SQLModel, col

from storage.database.states import (
    OPEN_JOB_STATES,
    ChunkState,
    JobState,
    StopReason,
    check_transition,
)
from storage.database.tables import Chunk, Job
from storage.errors import NotFound, StateConflict, StorageError

Row = TypeVar("Row", bound=SQLModel)


@dataclass(frozen=True, slots=True)
class RenewResult:
    """The outcome of a renewal.

    Attributes:
        still_mine: whether the lease was renewed; if not, stop the work and write nothing.
        stop: set when the job is asked to end before all of its lines are done.
    """

    still_mine: bool
    stop: StopReason | None = None

    @property
    def job_cancelled(self) -> bool:
        """Whether the job is cancelled or has expired."""
        return self.stop is not None


def advance_job(
    session: Session,
    job_id: str,
    before: JobState,
    after: JobState,
    *guards: ColumnElement[bool],
    **values: Any,
) -> Job | None:
    """Move a job on and drop its lease; ``None`` when it is not as expected."""
    check_transition(before, after)
    values["waiting_for"] = None
    if after not in OPEN_JOB_STATES:
        values["paused_at"] = None
    return first_row(
        session,
        update(Job)
        .where(col(Job.id) == job_id, col(Job.state) == before, *guards)
        .values(state=after, lease_owner=None, lease_exp=None, attempts=0, **values)
        .returning(Job),
    )


def advance_chunk(
    session: Session,
    chunk_id: str,
    attempt: int,
    after: ChunkState,
    **values: Any,
) -> Chunk | None:
    """Move a leased chunk on; ``None`` when the lease is not this attempt's any more."""
    check_transition(ChunkState.LEASED, after)
    return first_row(
        session,
        update(Chunk)
        .where(
            col(Chunk.id) == chunk_id,
            col(Chunk.attempt) == attempt,
            col(Chunk.state) == ChunkState.LEASED,
        )
        .values(state=after, owner=None, lease_exp=None, **values)
        .returning(Chunk),
    )


def first_row(session: Session, statement: ReturningUpdate[Row]) -> Row | None:
    """The row that an ``UPDATE … RETURNING`` changed, if it changed one."""
    return session.scalars(
        statement,
        execution_options={"synchronize_session": False, "populate_existing": True},
    ).first()


def lost(session: Session, table: type[SQLModel], row_id: str) -> StorageError:
    """The error for an update that changed nothing: no such row, or a lost race."""
    name = table.__name__
    if session.get(table, row_id, populate_existing=True) is None:
        return NotFound(f"There is no {name} {row_id}.")
    return StateConflict(f"{name} {row_id} is not in the expected state any more.")
