"""Jobs as their owners see them: create, look up, list, stop, and how far they are.

`storage.planning` and `storage.finalizing` hold what moves a job from state to state.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, func, select, tuple_, update
from sqlmodel import Session, col

from storage.database import Database, insert_if_absent, now_sql
from storage.errors import IdempotencyMismatch, NotFound, StateConflict
from storage.files import Page
from storage.ids import new_id
from storage.states import LIVE_JOB_STATES, ChunkState, JobState, StopReason
from storage.tables import Chunk, File, Job
from storage.transitions import first_row


@dataclass(frozen=True, slots=True)
class NewJob:
    """A batch to create.

    Attributes:
        window_seconds: from its creation to its expiry; ``completion_window`` is how the client
            wrote it.
        input_file: the uploaded file's row.
        idem_key, idem_hash: the client's idempotency key and a hash of its request, or neither.
        output_expires_seconds: life of the result files from their creation; ``None`` is for ever.
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


@dataclass(frozen=True, slots=True)
class Created:
    """A job, and whether this very call created it."""

    job: Job
    new: bool


@dataclass(frozen=True, slots=True)
class JobProgress:
    """Sums over a job's chunks: what is committed, and what running attempts last reported.

    ``n_cancelled`` counts lines that will never run; each becomes an error line.
    ``planned_tokens`` are the prompts' tokens of all lines.
    """

    n_ok: int = 0
    n_err: int = 0
    n_cancelled: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    planned_tokens: int = 0

    @property
    def done(self) -> int:
        """Lines that have their answer, good or bad."""
        return self.n_ok + self.n_err


@dataclass(frozen=True, slots=True)
class JobView:
    """A job and its progress, read together at the database's time ``now``."""

    job: Job
    progress: JobProgress
    now: float


def create_job(database: Database, new: NewJob) -> Created:
    """Insert a job; it is durable when this returns.

    The same idempotency key gives the same job, however many callers race.

    Raises:
        IdempotencyMismatch: the key was used with another request.
    """
    job_id = new_id("batch")
    values = _values(job_id, new)

    def change(session: Session) -> Created:
        insert_if_absent(session, Job, values)
        job = session.get(Job, job_id)
        if job is not None:
            return Created(job, new=True)
        earlier = session.scalars(
            select(Job).where(
                col(Job.tenant_id) == new.tenant_id, col(Job.idem_key) == new.idem_key
            )
        ).one()
        if earlier.idem_hash != new.idem_hash:
            raise IdempotencyMismatch()
        return Created(earlier, new=False)

    return database.settle(change)


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
        return JobView(job, _progress(session, [job_id])[job_id], database.now(session))


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
        sums = _progress(session, [job.id for job in jobs])
        now = database.now(session)
    views = [JobView(job, sums[job.id], now) for job in jobs]
    return Page(views[:limit], len(views) > limit)


def progress(database: Database, job_id: str) -> JobProgress:
    """How far a job is; all zeros for one that is not planned yet, or not there."""
    with database.read() as session:
        return _progress(session, [job_id])[job_id]


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
            .values(cancel=StopReason.CANCELLED, cancelling_at=now_sql())
            .returning(Job),
        )
        if job is not None:
            return job
        job = _owned(session, tenant_id, job_id)
        if job.state in LIVE_JOB_STATES or job.state == JobState.CANCELLED:
            return job
        raise StateConflict(f"The batch is {job.state} and cannot be cancelled.")

    return database.settle(change)


def totals(session: Session, *guards: ColumnElement[bool]) -> dict[str, JobProgress]:
    """The sums over the chunks that fulfil ``guards``, by job; jobs without any are left out."""
    cancelled = col(Chunk.state) == ChunkState.CANCELLED
    zero = func.coalesce
    rows = session.execute(
        select(
            col(Chunk.job_id),
            func.sum(col(Chunk.n_ok)),
            func.sum(col(Chunk.n_err)),
            zero(func.sum(col(Chunk.b) - col(Chunk.a)).filter(cancelled), 0),
            func.sum(col(Chunk.prompt_tokens)),
            func.sum(col(Chunk.cached_tokens)),
            func.sum(col(Chunk.completion_tokens)),
            func.sum(col(Chunk.n_tokens)),
        )
        # A split chunk's lines are counted in its children.
        .where(col(Chunk.state) != ChunkState.SPLIT, *guards)
        .group_by(col(Chunk.job_id))
    )
    return {job_id: JobProgress(*(int(value) for value in sums)) for job_id, *sums in rows}


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
        "output_expires_seconds": new.output_expires_seconds,
        "created_at": now_sql(),
        "expires_at": now_sql() + new.window_seconds,
    }


def _progress(session: Session, job_ids: Iterable[str]) -> dict[str, JobProgress]:
    ids = list(job_ids)
    sums = totals(session, col(Chunk.job_id).in_(ids))
    return {job_id: sums.get(job_id, JobProgress()) for job_id in ids}


def _owned(session: Session, tenant_id: str, job_id: str) -> Job:
    job = session.get(Job, job_id)
    if job is None or job.tenant_id != tenant_id:
        raise _no_job(job_id)
    return job


def _no_job(job_id: str) -> NotFound:
    return NotFound(f"There is no batch {job_id}.")
