"""Which objects are of no use any more: ended jobs' plans and parts, and files without a row."""

from collections.abc import Collection

from sqlalchemy import func, select, update
from sqlmodel import col

from storage.database.connection import Database, now_sql
from storage.database.states import TERMINAL_JOB_STATES
from storage.database.tables import File, Job


def collectable_jobs(
    database: Database, *, older_than: float, after: str = "", limit: int = 100
) -> list[str]:
    """Ids, from the one after ``after``, of jobs that ended more than ``older_than`` seconds ago.

    Only those that are not collected yet. Their plans and parts can go
    (`storage.objects.object_keys.plans`, `storage.objects.object_keys.parts`): no live attempt is
    left that could still read or write one. Of their results
    (`storage.objects.object_keys.results`) those can go that are `unreferenced`: a finalizer that
    lost its epoch wrote them.
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
    """Of these objects, the ones that no file which is still there points at.

    An upload gets its row only after its object, so of the objects under
    `storage.objects.object_keys.UPLOADS` ask for old ones only. At most a few hundred keys at a
    time.
    """
    query = select(col(File.object_key)).where(
        col(File.object_key).in_(object_keys), col(File.deleted_at).is_(None)
    )
    with database.read() as session:
        return set(object_keys) - set(session.scalars(query))


def mark_collected(database: Database, job_id: str) -> None:
    """The job's plans and parts are deleted, and what lost epochs wrote."""
    with database.write() as session:
        session.execute(update(Job).where(col(Job.id) == job_id).values(collected_at=now_sql()))
