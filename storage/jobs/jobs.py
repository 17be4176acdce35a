"""Jobs as their owners see them: create, look up, list, pause, resume, stop.

`storage.jobs.planning` and `storage.jobs.finalizing` move a job from state to state.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, func, null, select, tuple_, update
from sqlmodel import Session, col

from storage.database.connection import Database, insert_if_absent, now_sql
from storage.database.states import LIVE_JOB_STATES, OPEN_JOB_STATES, JobState, StopReason
from storage.database.tables import File, Job
from storage.errors import (
    IdempotencyMismatch,
    InputGone,
    NotFound,
    RetrySourceGone,
    StateConflict,
)
from storage.ids import new_id
from storage.jobs.outputs.planned import add_output
from storage.jobs.progress import JobProgress, progress_of
from storage.jobs.transitions import first_row
from storage.registry import files
from storage.registry.files import Page


@dataclass(frozen=True, slots=True)
class NewJob:
    """A batch to create.

    Attributes:
        window_seconds: from its creation to its expiry; ``completion_window`` is how the client
            wrote it.
        input_file: the uploaded file's row.
        idem_key, idem_hash: the client's idempotency key and a hash of its request, or neither.
        output_expires_seconds: life of the result files from their creation; ``None`` is for ever.
        retry_of: the batch of which only the failed lines are run (see `storage.jobs.retries`).
    """

    tenant_id: str
    endpoint: str
    completion_window: str
    window_seconds: float
    input_file: File
    meta: Mapping[str, str] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    priority: int = 0
    output_expires_seconds: int | None = None
    idem_key: str | None = None
    idem_hash: str | None = None
    retry_of: str | None = None


@dataclass(frozen=True, slots=True)
class Created:
    """A job, and whether this call created it."""

    job: Job
    new: bool


@dataclass(frozen=True, slots=True)
class JobView:
    """A job and its progress, read together at the database's time ``now``."""

    job: Job
    progress: JobProgress
    now: float


def create_job(database: Database, new: NewJob) -> Created:
    """Insert a job; it is durable when this returns, and its files stay until it is planned.

    The same idempotency key gives the same job, also to callers that race.

    Raises:
        IdempotencyMismatch: the key was used with another request.
        OutputError: another job writes where this one is to.
        InputGone, RetrySourceGone: its input, or the error file that it retries, is gone by now.
    """
    job_id = new_id("batch")
    values = _values(job_id, new)

    def change(session: Session) -> Created:
        job = session.get(Job, job_id)  # there already where an earlier commit's reply was lost
        if job is None and files.hold(session, *_files_of(session, new)):
            insert_if_absent(session, Job, values)
            job = session.get(Job, job_id)
            if job is not None:
                add_output(session, job)
        if job is not None:
            return Created(job, new=True)
        # Asked for last: a caller that raced may have made it while the files were waited for.
        earlier = _made_with(session, new.tenant_id, new.idem_key, new.idem_hash)
        if earlier is None:
            raise InputGone if new.retry_of is None else RetrySourceGone
        return Created(earlier, new=False)

    return database.settle(change)


def find_created(
    database: Database, tenant_id: str, idem_key: str | None, idem_hash: str | None
) -> Job | None:
    """The job that the same request made before, even where its input is gone by now.

    Raises:
        IdempotencyMismatch: the key was used with another request.
    """
    with database.read() as session:
        return _made_with(session, tenant_id, idem_key, idem_hash)


def get(database: Database, tenant_id: str, job_id: str) -> Job:
    """A tenant's job, or `NotFound`; other tenants' jobs are not found either."""
    with database.read() as session:
        return _owned(session, tenant_id, job_id)


def load(database: Database, job_id: str) -> Job:
    """Any tenant's job, for the workers; or `NotFound`."""
    with database.read() as session:
        job = session.get(Job, job_id)
    if job is None:
        raise _no_job(job_id)
    return job


def view(database: Database, tenant_id: str, job_id: str) -> JobView:
    """A tenant's job with its progress, or `NotFound`."""
    with database.read() as session:
        job = _owned(session, tenant_id, job_id)
        return JobView(job, progress_of(session, [job_id])[job_id], database.now(session))


def list_jobs(
    database: Database, tenant_id: str, *, after: str | None = None, limit: int = 20
) -> Page[JobView]:
    """A tenant's jobs with their progress, newest first, from the one after the job ``after``.

    Raises:
        NotFound: ``after`` is no job of this tenant.
    """
    query = select(Job).where(col(Job.tenant_id) == tenant_id).limit(limit + 1)
    query = query.order_by(col(Job.created_at).desc(), col(Job.id).desc())
    with database.read() as session:
        if after is not None:
            mark = _owned(session, tenant_id, after)
            place = tuple_(col(Job.created_at), col(Job.id))
            query = query.where(place < tuple_(mark.created_at, mark.id))
        jobs = list(session.scalars(query))
        sums = progress_of(session, [job.id for job in jobs])
        now = database.now(session)
    views = [JobView(job, sums[job.id], now) for job in jobs]
    return Page(views[:limit], len(views) > limit)


def progress(database: Database, job_id: str) -> JobProgress:
    """How far a job is; all zeros for one that is not planned yet, or not there."""
    with database.read() as session:
        return progress_of(session, [job_id])[job_id]


def request_stop(database: Database, tenant_id: str, job_id: str) -> Job:
    """Ask a job to end. Workers see it at their next renewal; what is committed is kept.

    A job that is cancelled already, or on its way there, is returned as it is.

    Raises:
        NotFound: the tenant has no such job.
        StateConflict: the job has ended in another way.
    """

    def change(session: Session) -> Job:
        job = first_row(
            session,
            update(Job)
            .where(
                col(Job.id) == job_id,
                col(Job.tenant_id) == tenant_id,
                col(Job.state).in_(LIVE_JOB_STATES),
                col(Job.cancel).is_(None),
            )
            .values(cancel=StopReason.CANCELLED, cancelling_at=now_sql(), paused_at=None)
            .returning(Job),
        )
        if job is not None:
            return job
        job = _owned(session, tenant_id, job_id)
        if job.state in LIVE_JOB_STATES or job.state == JobState.CANCELLED:
            return job
        raise StateConflict(f"The batch is {job.state} and cannot be cancelled.")

    return database.settle(change)


def pause(database: Database, tenant_id: str, job_id: str) -> Job:
    """Let no chunk of a job be claimed until `resume`. Leased chunks run to their commit.

    Planning goes on, and so does the completion window. Pausing it again changes nothing.

    Raises:
        NotFound: the tenant has no such job.
        StateConflict: the job has no chunks left to run, or is to stop.
    """
    paused = func.coalesce(col(Job.paused_at), now_sql())
    return _set_paused(database, tenant_id, job_id, paused, "paused")


def resume(database: Database, tenant_id: str, job_id: str) -> Job:
    """Let a paused job's chunks be claimed again; one that is not paused is returned as it is.

    Raises:
        NotFound, StateConflict: as `pause`.
    """
    return _set_paused(database, tenant_id, job_id, null(), "resumed")


def _set_paused(
    database: Database, tenant_id: str, job_id: str, paused_at: ColumnElement[Any], verb: str
) -> Job:
    def change(session: Session) -> Job:
        job = first_row(
            session,
            update(Job)
            .where(
                col(Job.id) == job_id,
                col(Job.tenant_id) == tenant_id,
                col(Job.state).in_(OPEN_JOB_STATES),
                col(Job.cancel).is_(None),
            )
            .values(paused_at=paused_at)
            .returning(Job),
        )
        if job is not None:
            return job
        _owned(session, tenant_id, job_id)
        raise StateConflict(f"The batch is ending or has ended and cannot be {verb}.")

    return database.settle(change)


def _files_of(session: Session, new: NewJob) -> list[str]:
    """The files that the job's planner will read."""
    if new.retry_of is None:
        return [new.input_file.id]
    earlier = session.get_one(Job, new.retry_of)
    return [new.input_file.id, earlier.err_file_id or ""]


def _made_with(
    session: Session, tenant_id: str, idem_key: str | None, idem_hash: str | None
) -> Job | None:
    if idem_key is None:
        return None
    job = session.scalars(
        select(Job).where(col(Job.tenant_id) == tenant_id, col(Job.idem_key) == idem_key)
    ).first()
    if job is not None and job.idem_hash != idem_hash:
        raise IdempotencyMismatch()
    return job


def _values(job_id: str, new: NewJob) -> dict[str, Any]:
    return {
        "id": job_id,
        "tenant_id": new.tenant_id,
        "idem_key": new.idem_key,
        "idem_hash": new.idem_hash,
        "endpoint": new.endpoint,
        "completion_window": new.completion_window,
        "input_file_id": new.input_file.id,
        "input_key": new.input_file.object_key,
        "input_etag": new.input_file.etag,
        "input_sha256": new.input_file.sha256,
        "metadata": None if new.meta is None else dict(new.meta),
        "options": dict(new.options),
        "priority": new.priority,
        "retry_of": new.retry_of,
        "output_expires_seconds": new.output_expires_seconds,
        "created_at": now_sql(),
        "expires_at": now_sql() + new.window_seconds,
    }


def _owned(session: Session, tenant_id: str, job_id: str) -> Job:
    job = session.get(Job, job_id)
    if job is None or job.tenant_id != tenant_id:
        raise _no_job(job_id)
    return job


def _no_job(job_id: str) -> NotFound:
    return NotFound(f"There is no batch {job_id}.")
