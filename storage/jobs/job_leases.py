"""The lease on a job, which its planner takes first and its finalizer later.

A lease is an owner, an expiry and an epoch that grows with every claim. Every write names its
epoch, so an owner whose lease ran out can change nothing.
"""

from typing import Any

from sqlalchemy import ColumnElement, or_, select, update
from sqlmodel import col

from storage.database.connection import Database, now_sql
from storage.database.states import JobState, StopReason
from storage.database.tables import Job
from storage.jobs.transitions import RenewResult, first_row


def unleased() -> ColumnElement[bool]:
    """Jobs that nobody holds a lease on."""
    return or_(col(Job.lease_exp).is_(None), col(Job.lease_exp) <= now_sql())


def held(state: JobState, epoch: ColumnElement[bool]) -> tuple[ColumnElement[bool], ...]:
    """Conditions for a job in ``state`` that is still leased under ``epoch``."""
    return (col(Job.state) == state, epoch, col(Job.lease_owner).is_not(None))


def claim_job(
    database: Database,
    owner: str,
    state: JobState,
    *guards: ColumnElement[bool],
    lease_seconds: float,
    **epoch: ColumnElement[int],
) -> Job | None:
    """Lease the most urgent job in ``state`` that meets ``guards`` and that nobody holds.

    ``epoch`` is the column to raise, such as ``plan_epoch=col(Job.plan_epoch) + 1``.
    """
    free = (col(Job.state) == state, unleased(), *guards)
    chosen = (
        select(col(Job.id))
        .where(*free)
        .order_by(col(Job.priority).desc(), col(Job.created_at), col(Job.id))
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    with database.write() as session:
        return first_row(
            session,
            update(Job)
            .where(col(Job.id) == chosen.scalar_subquery(), *free)
            .values(
                lease_owner=owner,
                lease_exp=now_sql() + lease_seconds,
                attempts=col(Job.attempts) + 1,
                **epoch,
            )
            .returning(Job),
        )


def renew_job(
    database: Database, job_id: str, *guards: ColumnElement[bool], lease_seconds: float
) -> RenewResult:
    """Keep a lease, which ``guards`` says is held (`held`), for ``lease_seconds`` from now."""
    with database.write() as session:
        job = first_row(
            session,
            update(Job)
            .where(col(Job.id) == job_id, *guards)
            .values(lease_exp=now_sql() + lease_seconds)
            .returning(Job),
        )
    if job is None:
        return RenewResult(still_mine=False)
    return RenewResult(True, StopReason(job.cancel) if job.cancel else None)


def release_job(
    database: Database, job_id: str, *guards: ColumnElement[bool], delay: float, **values: Any
) -> None:
    """Drop a lease and set ``values``; one that ``guards`` says is not held is left alone."""
    with database.write() as session:
        session.execute(
            update(Job)
            .where(col(Job.id) == job_id, *guards)
            .values(
                lease_owner=None,
                lease_exp=now_sql() + delay,
                attempts=col(Job.attempts) - 1,
                **values,
            ),
            execution_options={"synchronize_session": False},
        )
