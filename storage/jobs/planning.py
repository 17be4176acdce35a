"""The planner's lease on a job, and the one transaction that ends it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, insert
from sqlmodel import Session, col

from storage.database.connection import Database, now_sql
from storage.database.states import JobState
from storage.database.tables import Chunk, Job
from storage.errors import PlanInvalid
from storage.estimates.work import PlannedWork
from storage.ids import new_id
from storage.jobs.job_leases import claim_job, held, release_job, renew_job
from storage.jobs.outputs.planned import PlannedShard, add_shards
from storage.jobs.transitions import RenewResult, advance_job, lost
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

    ``model`` is set where all lines name the same; ``report`` lists the bad lines, if any. ``work``
    is what each model has to do, by its name; ``common`` what the rows have in common, as a text.
    ``estimate`` and ``likeness`` are as in the job's row. ``shards`` are those of a job whose
    results are written elsewhere too, with ``columns`` as ``{name, type}``.
    """

    n_lines: int
    chunks: Sequence[PlannedChunk]
    model: str | None
    summary: dict[str, Any]
    n_invalid: int = 0
    errors: Sequence[dict[str, Any]] = ()
    report: NewFile | None = None
    work: Mapping[str, PlannedWork] = field(default_factory=dict)
    common: str = ""
    estimate: dict[str, Any] | None = None
    likeness: str | None = None
    shards: Sequence[PlannedShard] = ()
    columns: Sequence[dict[str, str]] = ()

    def values(self) -> dict[str, Any]:
        """As columns of the job, but for the number of its lines."""
        return {
            "n_invalid": self.n_invalid,
            "model": self.model,
            "plan": self.summary,
            "errors": list(self.errors) or None,
            "report_file_id": self.report.id if self.report else None,
            "estimate": self.estimate,
            "likeness": self.likeness,
        }


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

    ``attempts`` counts the claims since the last one that was committed or released. Where it is
    large, earlier planners died of this job, and the caller should fail it.
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
    """Renew the lease, and learn whether the job is to stop."""
    return renew_job(database, job_id, *_held(epoch), lease_seconds=lease_seconds)


def release_plan(
    database: Database,
    job_id: str,
    epoch: int,
    *,
    delay: float = 0.0,
    waiting_for: dict[str, Any] | None = None,
) -> None:
    """Give the lease back without counting an attempt; claimable after ``delay`` seconds.

    ``waiting_for`` is the note of why (`storage.jobs.waiting_models`).
    """
    release_job(database, job_id, *_held(epoch), delay=delay, waiting_for=waiting_for)


def commit_plan(database: Database, job_id: str, epoch: int, plan: Plan) -> Job:
    """Insert every chunk and start the job, in one transaction.

    Raises:
        PlanInvalid: the chunks do not cover the lines exactly once, or the shards do not.
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
            **plan.values(),
        )
        if job is None:
            return _left_before(session, job_id, epoch, "in_progress_at")
        if plan.report is not None:
            files.add(session, plan.report)
        for start in range(0, len(plan.chunks), INSERT_ROWS):
            rows = [_row(job_id, chunk) for chunk in plan.chunks[start : start + INSERT_ROWS]]
            session.execute(insert(Chunk), rows)
        add_shards(session, job_id, plan.n_lines, plan.shards, plan.columns)
        return job

    return database.settle(change)


def complete_estimate(database: Database, job_id: str, epoch: int, plan: Plan) -> Job:
    """End a job that asks for its estimate alone: it has no chunks, and no line of it is run.

    Raises:
        StateConflict: the epoch is over, or the job is asked to stop.
    """

    def change(session: Session) -> Job:
        job = advance_job(
            session,
            job_id,
            JobState.VALIDATING,
            JobState.COMPLETED,
            col(Job.plan_epoch) == epoch,
            col(Job.cancel).is_(None),
            completed_at=now_sql(),
            n_lines=0,
            **plan.values(),
        )
        return job or _left_before(session, job_id, epoch, "completed_at")

    return database.settle(change)


def fail_job(database: Database, job_id: str, epoch: int, refusal: Refusal) -> Job:
    """End a job at validation.

    Raises:
        StateConflict: the epoch is over, or the job is asked to stop.
    """

    def change(session: Session) -> Job:
        job = advance_job(
            session,
            job_id,
            JobState.VALIDATING,
            JobState.FAILED,
            col(Job.plan_epoch) == epoch,
            col(Job.cancel).is_(None),
            failed_at=now_sql(),
            errors=list(refusal.errors),
            n_invalid=refusal.n_invalid,
            n_lines=refusal.n_lines,
            report_file_id=refusal.report.id if refusal.report else None,
        )
        if job is None:
            return _left_before(session, job_id, epoch, "failed_at")
        if refusal.report is not None:
            files.add(session, refusal.report)
        return job

    return database.settle(change)


def _held(epoch: int) -> tuple[ColumnElement[bool], ...]:
    return held(JobState.VALIDATING, col(Job.plan_epoch) == epoch)


def _left_before(session: Session, job_id: str, epoch: int, time: str) -> Job:
    """The job as this planner has changed it before, where the reply was lost; or the error."""
    known = session.get(Job, job_id)
    if known is not None and getattr(known, time) and known.plan_epoch == epoch:
        return known
    raise lost(session, Job, job_id)


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
