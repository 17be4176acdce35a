"""The finalizer's lease on a job, and the one transaction that makes the job terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement
from sqlmodel import Session, col

from storage.database.connection import Database, now_sql
from storage.database.states import (
    TERMINAL_CHUNK_STATES,
    TERMINAL_JOB_STATES,
    ChunkState,
    JobState,
)
from storage.database.tables import Chunk, Job
from storage.errors import CountsDiffer
from storage.ids import new_id
from storage.jobs.job_leases import claim_job, held, release_job, renew_job
from storage.jobs.outputs.leases import all_settled
from storage.jobs.outputs.views import problem_of
from storage.jobs.progress import JobProgress, totals
from storage.jobs.transitions import RenewResult, advance_job, lost
from storage.registry import files
from storage.registry.files import NewFile

# How a job ends, by the reason for which it was to stop; and the column of each end's time.
END_STATES: Mapping[str | None, JobState] = {
    None: JobState.COMPLETED,
    "cancelled": JobState.CANCELLED,
    "expired": JobState.EXPIRED,
    "broken": JobState.FAILED,
}
END_TIMES: Mapping[JobState, str] = {
    JobState.COMPLETED: "completed_at",
    JobState.FAILED: "failed_at",
    JobState.CANCELLED: "cancelled_at",
    JobState.EXPIRED: "expired_at",
}


@dataclass(frozen=True, slots=True)
class Results:
    """The merged result files; ``None`` for one that would be empty.

    ``n_output`` and ``n_errors`` are the lines that were written to each.
    """

    n_output: int
    n_errors: int
    output: NewFile | None
    errors: NewFile | None


def claim_finalize(
    database: Database, owner: str, *, lease_seconds: float, job_id: str | None = None
) -> Job | None:
    """Lease the next job to finalize (or ``job_id`` alone); its ``fin_epoch`` is the caller's.

    One that still waits for shards of its output is not yet to be finalized.
    """
    return claim_job(
        database,
        owner,
        JobState.FINALIZING,
        all_settled(),
        *([] if job_id is None else [col(Job.id) == job_id]),
        lease_seconds=lease_seconds,
        fin_epoch=col(Job.fin_epoch) + 1,
    )


def renew_finalize(
    database: Database, job_id: str, epoch: int, *, lease_seconds: float
) -> RenewResult:
    """Renew the lease."""
    return renew_job(database, job_id, *_held(epoch), lease_seconds=lease_seconds)


def release_finalize(database: Database, job_id: str, epoch: int, *, delay: float = 0.0) -> None:
    """Give the lease back without counting an attempt; claimable after ``delay`` seconds."""
    release_job(database, job_id, *_held(epoch), delay=delay)


def commit_final(database: Database, job_id: str, epoch: int, results: Results) -> Job:
    """Publish the results and make the job completed, cancelled or expired.

    The counts and the usage are sums over the chunks; the counts must equal the lines written. The
    lines of a job that was never planned become one chunk, which is cancelled.

    Raises:
        CountsDiffer: they do not.
        StateConflict: the epoch is over.
    """

    def change(session: Session) -> Job:
        job = session.get(Job, job_id, with_for_update=True)
        if job is None:
            raise lost(session, Job, job_id)
        if job.fin_epoch != epoch or job.state not in (JobState.FINALIZING, *TERMINAL_JOB_STATES):
            raise lost(session, Job, job_id)
        if job.state in TERMINAL_JOB_STATES:
            return job  # this commit, whose reply was lost
        n_lines = job.n_lines
        if job.in_progress_at is None:
            n_lines = results.n_errors
            _cancel_lines(session, job_id, n_lines)
        sums = _sums(session, job_id)
        _check_counts(job_id, n_lines, sums, results)
        values = _result_values(results) | {"n_lines": n_lines}
        problem = problem_of(session, job_id)
        if problem is not None:
            values["errors"] = [*(job.errors or []), problem]
        ended = _end(session, job_id, epoch, END_STATES[job.cancel], sums, **values)
        for new in (results.output, results.errors):
            if new is not None:
                files.add(session, new)
        return ended

    return database.settle(change)


def fail_final(
    database: Database, job_id: str, epoch: int, errors: Sequence[dict[str, Any]]
) -> Job:
    """End a job whose results cannot be merged.

    Raises:
        StateConflict: the epoch is over.
    """

    def change(session: Session) -> Job:
        job = session.get(Job, job_id, with_for_update=True)
        if job is not None and job.state == JobState.FAILED and job.fin_epoch == epoch:
            return job
        sums = _sums(session, job_id)
        return _end(session, job_id, epoch, JobState.FAILED, sums, errors=list(errors))

    return database.settle(change)


def _cancel_lines(session: Session, job_id: str, n_lines: int) -> None:
    """The lines of a job that was stopped before it had chunks, as one."""
    if not n_lines:
        return
    chunk = Chunk(
        id=new_id("chunk"),
        job_id=job_id,
        a=0,
        b=n_lines,
        model="",
        state=ChunkState.CANCELLED,
        plan_key="",
        plan_a=0,
        first_line=1,
        last_line=n_lines,
    )
    session.add(chunk)
    session.flush()


def _held(epoch: int) -> tuple[ColumnElement[bool], ...]:
    return held(JobState.FINALIZING, col(Job.fin_epoch) == epoch)


def _sums(session: Session, job_id: str) -> JobProgress:
    settled = col(Chunk.state).in_(TERMINAL_CHUNK_STATES)
    return totals(session, col(Chunk.job_id) == job_id, settled).get(job_id, JobProgress())


def _check_counts(job_id: str, n_lines: int | None, sums: JobProgress, results: Results) -> None:
    if sums.done + sums.n_cancelled != n_lines:
        raise CountsDiffer(
            f"{job_id}: {sums.done} lines done and {sums.n_cancelled} cancelled of {n_lines}."
        )
    if (results.n_output, results.n_errors) != (sums.n_ok, sums.n_err + sums.n_cancelled):
        raise CountsDiffer(
            f"{job_id}: {results.n_output} answers and {results.n_errors} errors were written,"
            f" {sums.n_ok} and {sums.n_err + sums.n_cancelled} were counted."
        )


def _result_values(results: Results) -> dict[str, Any]:
    output, errors = results.output, results.errors
    return {
        "out_file_id": output.id if output else None,
        "out_key": output.object_key if output else None,
        "out_sha256": output.sha256 if output else None,
        "err_file_id": errors.id if errors else None,
        "err_key": errors.object_key if errors else None,
        "err_sha256": errors.sha256 if errors else None,
    }


def _end(
    session: Session, job_id: str, epoch: int, state: JobState, sums: JobProgress, **values: Any
) -> Job:
    job = advance_job(
        session,
        job_id,
        JobState.FINALIZING,
        state,
        col(Job.fin_epoch) == epoch,
        n_ok=sums.n_ok,
        n_err=sums.n_err,
        n_cancelled=sums.n_cancelled,
        prompt_tokens=sums.prompt_tokens,
        cached_tokens=sums.cached_tokens,
        completion_tokens=sums.completion_tokens,
        **{END_TIMES[state]: now_sql()},
        **values,
    )
    if job is None:
        raise lost(session, Job, job_id)
    return job
