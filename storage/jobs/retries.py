"""Whether a batch's failed lines can be run again, and from which files."""

from dataclasses import dataclass

from storage.database.connection import Database
from storage.database.states import RETRYABLE_JOB_STATES
from storage.database.tables import File, Job
from storage.errors import NotFound, NothingToRetry, RetrySourceGone, StateConflict
from storage.jobs import jobs
from storage.registry import files


@dataclass(frozen=True, slots=True)
class Retryable:
    """An ended job, its error file, and its input file, from which the failed lines are read."""

    job: Job
    error_file: File
    input_file: File


def retry_source(database: Database, tenant_id: str, job_id: str) -> Retryable:
    """The files that a retry of this job needs (`storage.jobs.jobs.NewJob.retry_of`).

    Raises:
        NotFound: the tenant has no such job.
        StateConflict: the job has not ended yet, or failed as a whole.
        NothingToRetry: no line of it failed.
        RetrySourceGone: its input or its error file was deleted or has expired.
    """
    job = jobs.get(database, tenant_id, job_id)
    if job.state not in RETRYABLE_JOB_STATES:
        raise StateConflict(f"The batch is {job.state}; it has no result of which to retry lines.")
    if job.err_file_id is None:
        raise NothingToRetry
    try:
        return Retryable(
            job,
            files.get(database, tenant_id, job.err_file_id),
            files.get(database, tenant_id, job.input_file_id),
        )
    except NotFound:
        raise RetrySourceGone from None
