"""What is due by the rows alone, whoever died. Any number of reconcilers may run at once."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, exists, select, text, update
from sqlmodel import Session, col

from storage.database.connection import Database, now_sql
from storage.database.states import (
    LIVE_CHUNK_STATES,
    LIVE_JOB_STATES,
    OPEN_JOB_STATES,
    ChunkState,
    JobState,
    OutputState,
    StopReason,
    check_transition,
)
from storage.database.tables import Chunk, Job, Output
from storage.jobs.chunks import claimable, poisoned
from storage.jobs.crashes import note_crash
from storage.jobs.job_leases import unleased
from storage.jobs.outputs.leases import all_settled
from storage.wakeups import Wakeup

RECONCILE_LOCK = 0x71DE_0002
MAX_ROWS = 1_000
MAX_WAKEUPS = 100


def reconcile(database: Database, *, max_crashes: int) -> list[Wakeup]:
    """Do everything that is due, in one transaction; returns the wake-ups to send now.

    Does nothing while another reconciler runs (PostgreSQL).
    """
    with database.write() as session:
        if not _sole(database, session):
            return []
        _give_back(session, col(Chunk.lease_exp) <= now_sql())
        _expire_jobs(session)
        _stop_unplanned_jobs(session)
        _cancel_chunks(session)
        _begin_finalizing(session)
        return _wakeups(session, max_crashes)


def reclaim_embedded(database: Database) -> None:
    """Take every lease back at once: their owners ended with the last process.

    Only for a home whose lock the caller holds. Each leased chunk counts a crash, since one of them
    may have ended that process.
    """
    with database.write() as session:
        while _give_back(session, wait=False):
            pass
        _update(
            session,
            update(Job)
            .where(col(Job.state).in_(LIVE_JOB_STATES))
            .values(lease_owner=None, lease_exp=None),
        )
        _update(
            session,
            update(Output)
            .where(col(Output.state) == OutputState.OPEN)
            .values(lease_owner=None, lease_exp=None),
        )


def stop_broken_job(database: Database, job_id: str, errors: Sequence[dict[str, Any]]) -> None:
    """Ask a running job to end as failed, with these errors; one that is stopped stays as it is."""
    with database.write() as session:
        _update(
            session,
            update(Job)
            .where(
                col(Job.id) == job_id,
                col(Job.state) == JobState.RUNNING,
                col(Job.cancel).is_(None),
            )
            .values(cancel=StopReason.BROKEN, errors=list(errors), paused_at=None),
        )


def _sole(database: Database, session: Session) -> bool:
    """Whether no other reconciler runs: on PostgreSQL two would wait for each other."""
    if database.dialect == "sqlite":
        return True
    lock = text("SELECT pg_try_advisory_xact_lock(:key)")
    return bool(session.connection().execute(lock, {"key": RECONCILE_LOCK}).scalar_one())


def _give_back(session: Session, *guards: ColumnElement[bool], wait: bool = True) -> int:
    """Leased chunks that fulfil ``guards`` → pending or split; how many."""
    chunks: Sequence[Chunk] = session.scalars(
        select(Chunk)
        .where(col(Chunk.state) == ChunkState.LEASED, *guards)
        .order_by(col(Chunk.id))
        .limit(MAX_ROWS)
        .with_for_update(skip_locked=True)
    ).all()
    for chunk in chunks:
        note_crash(session, chunk, attempt=chunk.attempt, wait=wait)
    return len(chunks)


def _expire_jobs(session: Session) -> None:
    _update(
        session,
        update(Job)
        .where(
            col(Job.state).in_(OPEN_JOB_STATES),
            col(Job.cancel).is_(None),
            col(Job.expires_at) <= now_sql(),
        )
        .values(cancel=StopReason.EXPIRED, paused_at=None),
    )


def _stop_unplanned_jobs(session: Session) -> None:
    """A job that stops before it is planned: its finalizer accounts for the lines of its input."""
    check_transition(JobState.VALIDATING, JobState.FINALIZING)
    _update(
        session,
        update(Job)
        .where(col(Job.state) == JobState.VALIDATING, col(Job.cancel).is_not(None))
        .values(
            state=JobState.FINALIZING,
            finalizing_at=now_sql(),
            paused_at=None,
            lease_owner=None,
            lease_exp=None,
            attempts=0,
        ),
    )


def _cancel_chunks(session: Session) -> None:
    check_transition(ChunkState.PENDING, ChunkState.CANCELLED)
    stopped = select(col(Job.id)).where(
        col(Job.state) == JobState.RUNNING, col(Job.cancel).is_not(None)
    )
    _update(
        session,
        update(Chunk)
        .where(col(Chunk.state) == ChunkState.PENDING, col(Chunk.job_id).in_(stopped))
        .values(state=ChunkState.CANCELLED),
    )


def _begin_finalizing(session: Session) -> None:
    """Jobs without a live chunk are ready: new chunks are only made from live ones."""
    check_transition(JobState.RUNNING, JobState.FINALIZING)
    live = exists().where(col(Chunk.job_id) == col(Job.id), col(Chunk.state).in_(LIVE_CHUNK_STATES))
    _update(
        session,
        update(Job)
        .where(col(Job.state) == JobState.RUNNING, ~live)
        .values(state=JobState.FINALIZING, finalizing_at=now_sql(), paused_at=None, attempts=0),
    )


def _wakeups(session: Session, max_crashes: int) -> list[Wakeup]:
    models = claimable().where(~poisoned(max_crashes)).with_only_columns(col(Chunk.model))
    return [
        *(
            Wakeup.plan(job_id)
            for job_id in session.scalars(_waiting(JobState.VALIDATING, col(Job.cancel).is_(None)))
        ),
        *(Wakeup.drain(model) for model in session.scalars(models.distinct())),
        *(
            Wakeup.finalize(job_id)
            for job_id in session.scalars(_waiting(JobState.FINALIZING, all_settled()))
        ),
    ]


def _waiting(state: JobState, *guards: ColumnElement[bool]) -> Any:
    return (
        select(col(Job.id))
        .where(col(Job.state) == state, unleased(), *guards)
        .order_by(col(Job.priority).desc(), col(Job.created_at), col(Job.id))
        .limit(MAX_WAKEUPS)
    )


def _update(session: Session, statement: Any) -> None:
    session.execute(statement, execution_options={"synchronize_session": False})
