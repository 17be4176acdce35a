"""Claims of several chunks at once: jobs of a line each cost a worker few transactions."""

from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import not_
from sqlmodel import col

from storage.database.connection import Database
from storage.database.tables import Chunk
from storage.jobs.chunks import claim_in, claim_order, claimable, poisoned

MOST_CHUNKS = 64


def claim_chunks(
    database: Database,
    owner: str,
    models: Collection[str],
    *,
    lines: int,
    lease_seconds: float,
    max_crashes: int,
) -> list[Chunk]:
    """Lease the most urgent chunks of these models that have ``lines`` lines together.

    It is at least one chunk, if there is any. One that crashed before is leased alone: it must run
    alone. The order is that of `storage.jobs.chunks.claim_chunk`.
    """
    wanted = (col(Chunk.model).in_(models), not_(poisoned(max_crashes)))
    waiting = (
        claimable()
        .where(*wanted)
        .with_only_columns(col(Chunk.id), col(Chunk.b) - col(Chunk.a), col(Chunk.crashes))
        .order_by(*claim_order())
        .limit(MOST_CHUNKS)
    )
    with database.write() as session:
        ids = _first(session.execute(waiting).all(), lines)
        if len(ids) < 2:
            return claim_in(session, owner, *wanted, lease_seconds=lease_seconds)
        together = (*wanted, col(Chunk.id).in_(ids), col(Chunk.crashes) == 0)
        found = claim_in(
            session, owner, *together, lease_seconds=lease_seconds, limit=len(ids)
        ) or claim_in(session, owner, *wanted, lease_seconds=lease_seconds)
    places = {chunk_id: place for place, chunk_id in enumerate(ids)}
    return sorted(found, key=lambda chunk: places.get(chunk.id, 0))


def _first(waiting: Iterable[Any], lines: int) -> list[str]:
    """The first of these (id, lines, crashes) that have so many lines and never crashed."""
    ids: list[str] = []
    for chunk_id, size, crashes in waiting:
        if crashes or lines <= 0:
            break
        ids.append(chunk_id)
        lines -= size
    return ids
