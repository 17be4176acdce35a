"""Which jobs wait to be planned or finalized, in an order that is fair to tenants."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import and_, case, func, or_, select
from sqlmodel import col

from storage.database.connection import Database
from storage.database.states import JobState
from storage.database.tables import File, Job
from storage.jobs.job_leases import unleased
from storage.jobs.outputs.leases import all_settled

# What can be planned or finalized within a second or so, as far as one can tell beforehand.
SHORT_BYTES = 4 << 20
SHORT_LINES = 10_000


@dataclass(frozen=True, slots=True)
class WaitingJob:
    """A job that is to be planned, or else to be finalized."""

    job_id: str
    plan: bool


def waiting_jobs(
    database: Database, *, short: bool, long_ids: Collection[str] = (), limit: int = 100
) -> list[WaitingJob]:
    """Jobs that nobody has a lease on, the most urgent first.

    The order is the job's priority; then each tenant's first, each tenant's second and so on; then
    their age. So nobody waits for all that another tenant has created before.

    Args:
        short: whether to find those that take little time, or else all others. Which is which is
            told by the size of the input that is to be read, or the number of lines to merge.
        long_ids: jobs that are known to take long, though they look short.
    """
    plan = case((col(Job.state) == JobState.VALIDATING, 1), else_=0)
    unplanned = col(Job.in_progress_at).is_(None)
    looks_short = or_(
        and_(unplanned, func.coalesce(col(File.bytes), 0) <= SHORT_BYTES),
        and_(~unplanned, func.coalesce(col(Job.n_lines), 0) <= SHORT_LINES),
    )
    is_short = and_(looks_short, col(Job.id).not_in(long_ids))
    rank = func.row_number().over(
        partition_by=(col(Job.tenant_id), plan),
        order_by=(col(Job.priority).desc(), col(Job.created_at), col(Job.id)),
    )
    query = (
        select(col(Job.id), plan)
        .outerjoin(File, col(File.id) == col(Job.input_file_id))
        .where(
            or_(
                and_(col(Job.state) == JobState.VALIDATING, col(Job.cancel).is_(None)),
                and_(col(Job.state) == JobState.FINALIZING, all_settled()),
            ),
            unleased(),
            is_short if short else ~is_short,
        )
        .order_by(col(Job.priority).desc(), rank, col(Job.created_at), col(Job.id))
        .limit(limit)
    )
    with database.read() as session:
        return [WaitingJob(job_id, bool(plans)) for job_id, plans in session.execute(query)]
