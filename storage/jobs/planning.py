"""The planner's lease on a job, and the one transaction that ends it.

A lease on a job is an owner, an expiry and an epoch that grows with every claim. Whoever writes
must name its epoch, so a planner that was away too long can change nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, insert, or_, select, update
from sqlmodel import Session, col

from storage.database.connection import Database, now_sql
from storage.database.states import JobState, StopReason
from storage.database.tables import Chunk, Job
from storage.errors import PlanInvalid
from storage.ids import new_id
from storage.jobs.transitions import RenewResult, advance_job, first_row, lost
from storage.registry import files
from storage.registry.files import NewFile

INSERT_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class PlannedChunk:
    """Plan positions ``[a, b)``, in the plan file ``plan_key`` that starts at ``a``.

    ``first_line`` and ``last_line`` bound its lines' numbers in the input; ``n_tokens`` counts its
    prompts' tokens.
    """

    a: int
    b: int
    model: str
    plan_key: str
    first_line: int
    last_line: int
    n_tokens: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole plan. The chunks are in order and cover ``[0, n_lines)``.

    ``model`` is set where all lines name the same; ``report`` lists the bad lines, if any.
    """

    n_lines: int
    chunks: Sequence[PlannedChunk]
    model: str | None
    summary: dict[str, Any]
    n_invalid: int = 0
    errors: Sequence[dict[str, Any]] = ()
    report: NewFile | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a job fails at validation: ``errors`` as ``{code, message, param, line}``, capped."""

    errors: Sequence[dict[str, Any]]
    n_invalid: int = 0
    n_lines: int | None = None
    report: NewFile | None = None


def claim_plan(
    database: Database, owner: str, *, lease_seconds: float, job_id: str | None = None
) -> Job | None:
    """Lease the next job to plan (or ``job_id`` alone); its ``plan_epoch`` is now the caller's.

    ``attempts`` counts the claims that ended without a word: a planner that finds it large should
    fail the job rather than die of it once more.
    """
    return claim_job(
        database,
        owner,
        JobState.VALIDATING,
        col(Job.cancel).is_(None),
        *([] if job_id is None else [col(Job.id) == job_id]),
        lease_seconds=lease_seconds,
        plan_epoch=col(Job.plan_epoch) + 1,
    )


def renew_plan(database: Database, job_id: str, epoch: int, *, lease_seconds: float) -> RenewResult:
    """Keep the lease, and learn whether the job is to stop."""
    return renew_job(database, job_id, *_held(epoch), lease_seconds=lease_seconds)


def release_plan(database: Database, job_id: str, epoch: int, *, delay: float = 0.0) -> None:
    """Give the lease back, with nothing held against the job; claimable after ``delay`` seconds."""
    release_job(database, job_id, *_held(epoch), delay=delay)


def commit_plan(database: Database, job_id: str, epoch: int, plan: Plan) -> Job:
    """Insert every chunk and start the job, in one transaction.

    Raises:
        PlanInvalid: the chunks do not cover the lines exactly once.
        StateConflict: the epoch is over, or the job is asked to stop.
    """
    _check_cover(plan)

    def change(session: Session) -> Job:
        job = advance_job(
            session,
            job_id,
            JobState.VALIDATING,
            JobState.RUNNING,
            col(Job.plan_epoch) == epoch,
            col(Job.cancel).is_(None),
            in_progress_at=now_sql(),
            n_lines=plan.n_lines,
            n_invalid=plan.n_invalid,
            model=plan.model,
            plan=plan.summary,
            errors=list(plan.errors) or None,
            report_file_id=plan.report.id if plan.report else None,
        )
        if job is None:
            known = session.get(Job, job_id)
            if known is not None and known.in_progress_at and known.plan_epoch == epoch:
                return known  # this very commit, whose answer was lost
            raise lost(session, Job, job_id)
        if plan.report is not None:
            files.add(session, plan.report)
        for start in range(0, len(plan.chunks), INSERT_ROWS):
            rows = [_row(job_id, chunk) for chunk in plan.chunks[start : start + INSERT_ROWS]]
            session.execute(insert(Chunk), rows)
        return job

    return database.settle(change)


def fail_job(database: Database, job_id: str, epoch: int, refusal: Refusal) -> Job:
    """End a job at validation.

    Raises:
        StateConflict: the epoch is over.
    """

    def change(session: Session) -> Job:
        job = advance_job(
            session,
            job_id,
            JobState.VALIDATING,
            JobState.FAILED,
            col(Job.plan_epoch) == epoch,
            failed_at=now_sql(),
            errors=list(refusal.errors),
            n_invalid=refusal.n_invalid,
            n_lines=refusal.n_lines,
            report_file_id=refusal.report.id if refusal.report else None,
        )
        if job is None:
            known = session.get(Job, job_id)
            if known is not None and known.failed_at and known.plan_epoch == epoch:
                return known
            raise lost(session, Job, job_id)
        if refusal.report is not None:
            files.add(session, refusal.report)
        return job

    return database.settle(change)


def unleased() -> ColumnElement[bool]:
    """Jobs that nobody holds a lease on."""
    return or_(col(Job.lease_exp).is_(None), col(Job.lease_exp) <= now_sql())


def claim_job(
    database: Database,
    owner: str,
    state: JobState,
    *guards: ColumnElement[bool],
    lease_seconds: float,
    **epoch: ColumnElement[int],
) -> Job | None:
    """Lease the most urgent job in ``state`` that fulfils ``guards`` and nobody holds."""
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
    database: Database, job_id: str, *held: ColumnElement[bool], lease_seconds: float
) -> RenewResult:
    """Push a held lease's expiry back."""
    with database.write() as session:
        job = first_row(
            session,
            update(Job)
            .where(col(Job.id) == job_id, *held)
            .values(lease_exp=now_sql() + lease_seconds)
            .returning(Job),
        )
    if job is None:
        return RenewResult(still_mine=False)
    return RenewResult(True, StopReason(job.cancel) if job.cancel else None)


def release_job(database: Database, job_id: str, *held: ColumnElement[bool], delay: float) -> None:
    """Drop a held lease; a lease that is not held any more is left alone."""
    with database.write() as session:
        session.execute(
            update(Job)
            .where(col(Job.id) == job_id, *held)
            .values(
                lease_owner=None,
                lease_exp=now_sql() + delay,
                attempts=col(Job.attempts) - 1,
            ),
            execution_options={"synchronize_session": False},
        )


def _held(epoch: int) -> tuple[ColumnElement[bool], ...]:
    return (
        col(Job.state) == JobState.VALIDATING,
        col(Job.plan_epoch) == epoch,
        col(Job.lease_owner).is_not(None),
    )


def _check_cover(plan: Plan) -> None:
    at = 0
    for chunk in plan.chunks:
        if chunk.a != at or chunk.b <= chunk.a:
            raise PlanInvalid(f"The chunk [{chunk.a}, {chunk.b}) does not start at {at}.")
        at = chunk.b
    if at != plan.n_lines:
        raise PlanInvalid(f"The chunks end at {at} of {plan.n_lines} lines.")


def _row(job_id: str, chunk: PlannedChunk) -> dict[str, Any]:
    return {
        "id": new_id("chunk"),
        "job_id": job_id,
        "a": chunk.a,
        "b": chunk.b,
        "model": chunk.model,
        "plan_key": chunk.plan_key,
        "plan_a": chunk.a,
        "first_line": chunk.first_line,
        "last_line": chunk.last_line,
        "n_tokens": chunk.n_tokens,
    }
