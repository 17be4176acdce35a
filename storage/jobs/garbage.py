"""Which objects can be deleted: plan files and parts of ended jobs, and files without a row."""

from collections.abc import Collection

from sqlalchemy import func, select, update
from sqlmodel import col

from storage.database.connection import Database, now_sql
from storage.database.states import TERMINAL_JOB_STATES
from storage.database.tables import File, Job


def collectable_jobs(
    database: Database, *, older_than: float, after: str = "", limit: int = 100
) -> list[str]:
    """Ids, after ``after``, of uncollected jobs that ended more than ``older_than`` seconds ago.

    Their plan files and parts (`storage.objects.object_keys.plans`,
    `storage.objects.object_keys.parts`) can be deleted: no attempt is left that could read or write
    one. Of their result files (`storage.objects.object_keys.results`) the `unreferenced` ones can
    be deleted too: a finalizer whose lease ran out wrote them.
    """
    ended = func.coalesce(
        col(Job.completed_at), col(Job.failed_at), col(Job.cancelled_at), col(Job.expired_at)
    )
    query = (
        select(col(Job.id))
        .where(
            col(Job.state).in_(TERMINAL_JOB_STATES),
            col(Job.collected_at).is_(None),
            ended <= now_sql() - older_than,
            col(Job.id) > after,
        )
        .order_by(col(Job.id))
        .limit(limit)
    )
    with database.read() as session:
        return list(session.scalars(query))


def unreferenced(database: Database, object_keys: Collection[str]) -> set[str]:
    """Of these objects, those to which no row of a file points.

    An upload's object is written before its row, so ask for old objects only under
    `storage.objects.object_keys.UPLOADS`; and for a few hundred keys at most.
    """
    query = select(col(File.object_key)).where(
        col(File.object_key).in_(object_keys), col(File.deleted_at).is_(None)
    )
    with database.read() as session:
        return set(object_keys) - set(session.scalars(query))


def mark_collected(database: Database, job_id: str) -> None:
    """Note that the job's plan files, parts and unreferenced results are deleted."""
    with database.write() as session:
        session.execute(update(Job).where(col(Job.id) == job_id).values(collected_at=now_sql()))
