"""Which model's chunks are the most urgent, for workers that serve several models."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import func, not_
from sqlmodel import col

from storage.database.connection import Database
from storage.database.tables import Chunk, Job
from storage.jobs.chunks import claimable, poisoned


@dataclass(frozen=True, slots=True)
class WaitingModel:
    """A model that has claimable chunks.

    Attributes:
        priority: the highest among their jobs.
        unnoted: whether one of these jobs has no note of what it waits for.
    """

    name: str
    priority: int
    unnoted: bool


def waiting_models(
    database: Database, models: Collection[str] | None, *, max_crashes: int
) -> list[WaitingModel]:
    """Those of ``models`` (``None``: of all) with claimable chunks, the most urgent first.

    The order is that of `storage.jobs.chunks.claim_chunk`: the jobs' priority, then their age.
    """
    oldest = func.min(col(Job.created_at))
    query = (
        claimable()
        .where(not_(poisoned(max_crashes)))
        .with_only_columns(
            col(Chunk.model),
            col(Job.priority),
            func.count().filter(col(Job.waiting_for).is_(None)),
        )
        .group_by(col(Chunk.model), col(Job.priority))
        .order_by(col(Job.priority).desc(), oldest, col(Chunk.model))
    )
    if models is not None:
        query = query.where(col(Chunk.model).in_(models))
    highest: dict[str, int] = {}
    unnoted: set[str] = set()
    with database.read() as session:
        for model, priority, count in session.execute(query):
            highest.setdefault(model, priority)
            if count:
                unnoted.add(model)
    return [WaitingModel(name, priority, name in unnoted) for name, priority in highest.items()]
