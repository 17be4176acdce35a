"""Chunks under lease: claim, renew, commit, give back.

Every claim raises the chunk's attempt, and every later write names it. A worker that was away too
long, while its chunk went to another, therefore changes nothing, whatever it still believes.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, not_, select, tuple_, update
from sqlmodel import Session, col

from storage.database import Database, now_sql
from storage.ids import new_id
from storage.states import ChunkState, JobState, StopReason
from storage.tables import Chunk, Job
from storage.transitions import RenewResult, advance_chunk, first_row, lost

SPLIT_CRASHES = 2
MAX_BACKOFF_SECONDS = 60.0
PAGE_ROWS = 1_000
_NO_COUNTS = {
    "progress": 0,
    "n_ok": 0,
    "n_err": 0,
    "prompt_tokens": 0,
    "cached_tokens": 0,
    "completion_tokens": 0,
}


@dataclass(frozen=True, slots=True)
class Counts:
    """Lines answered, lines that are errors, and tokens used; of one attempt at one chunk."""

    ok: int = 0
    err: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0

    def values(self) -> dict[str, int]:
        """As columns of the chunk."""
        return {
            "progress": self.ok + self.err,
            "n_ok": self.ok,
            "n_err": self.err,
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "completion_tokens": self.completion_tokens,
        }


def claim_chunk(
    database: Database,
    owner: str,
    models: Collection[str],
    *,
    lease_seconds: float,
    max_crashes: int,
) -> Chunk | None:
    """Lease the most urgent chunk of these models; its ``attempt`` is now the caller's.

    The order is the job's priority, then its age, then the plan's order.
    """
    wanted = (col(Chunk.model).in_(models), not_(poisoned(max_crashes)))
    return _claim(database, owner, *wanted, lease_seconds=lease_seconds)


def claim_poison(
    database: Database, owner: str, *, lease_seconds: float, max_crashes: int
) -> Chunk | None:
    """Lease a single line that has crashed too often: not to run it, but to write its error."""
    return _claim(database, owner, poisoned(max_crashes), lease_seconds=lease_seconds)


def poison_chunks(database: Database, *, max_crashes: int, limit: int = 100) -> list[Chunk]:
    """Single lines that have crashed too often and wait for `claim_poison`."""
    query = claimable().where(poisoned(max_crashes)).limit(limit)
    with database.read() as session:
        return list(session.scalars(query))


def renew_chunk(
    database: Database, chunk_id: str, attempt: int, counts: Counts, *, lease_seconds: float
) -> RenewResult:
    """Keep the lease, report how far the attempt is, and learn whether the job is to stop."""
    with database.write() as session:
        chunk = first_row(
            session,
            update(Chunk)
            .where(
                col(Chunk.id) == chunk_id,
                col(Chunk.attempt) == attempt,
                col(Chunk.state) == ChunkState.LEASED,
            )
            .values(lease_exp=now_sql() + lease_seconds, **counts.values())
            .returning(Chunk),
        )
        if chunk is None:
            return RenewResult(still_mine=False)
        reason = session.scalars(select(col(Job.cancel)).where(col(Job.id) == chunk.job_id)).one()
    return RenewResult(True, StopReason(reason) if reason else None)


def commit_chunk(
    database: Database,
    chunk_id: str,
    attempt: int,
    *,
    part_key: str,
    part_sha256: str,
    counts: Counts,
) -> Chunk:
    """Make a stored part the chunk's one result. ``counts`` covers every line of the chunk.

    Raises:
        StateConflict: the lease is not this attempt's any more; the part will be collected.
    """

    def change(session: Session) -> Chunk:
        chunk = advance_chunk(
            session,
            chunk_id,
            attempt,
            ChunkState.DONE,
            part_key=part_key,
            part_sha256=part_sha256,
            done_at=now_sql(),
            **counts.values(),
        )
        if chunk is not None:
            return chunk
        known = session.get(Chunk, chunk_id)
        if known is not None and known.state == ChunkState.DONE and known.part_key == part_key:
            return known  # this very commit, whose answer was lost
        raise lost(session, Chunk, chunk_id)

    return database.settle(change)


def release_chunk(database: Database, chunk_id: str, attempt: int, *, delay: float = 0.0) -> None:
    """Give a chunk back with nothing held against it; claimable after ``delay`` seconds.

    Raises:
        StateConflict: the lease is not this attempt's any more.
    """
    with database.write() as session:
        released = advance_chunk(
            session,
            chunk_id,
            attempt,
            ChunkState.PENDING,
            not_before=now_sql() + delay,
            **_NO_COUNTS,
        )
        if released is None:
            raise lost(session, Chunk, chunk_id)


def crash_chunk(database: Database, chunk_id: str, attempt: int) -> None:
    """Give a chunk back because it took the engine down, or may have: see `note_crash`.

    Raises:
        StateConflict: the lease is not this attempt's any more.
    """
    with database.write() as session:
        chunk = session.get(Chunk, chunk_id, with_for_update=True)
        if chunk is None or not note_crash(session, chunk, attempt=attempt):
            raise lost(session, Chunk, chunk_id)


def note_crash(session: Session, chunk: Chunk, *, attempt: int, wait: bool = True) -> bool:
    """Take a leased chunk from an attempt that died; whether it was still that attempt's.

    At the second crash a chunk is split in two, so that a line that kills its worker is cornered
    in few steps while its neighbours get done. Otherwise it waits a while (if ``wait``), twice as
    long each time.
    """
    crashes = chunk.crashes + 1
    if crashes >= SPLIT_CRASHES and chunk.b - chunk.a > 1:
        if not advance_chunk(session, chunk.id, attempt, ChunkState.SPLIT, **_NO_COUNTS):
            return False
        middle = (chunk.a + chunk.b) // 2
        session.add(_child(chunk, chunk.a, middle))
        session.add(_child(chunk, middle, chunk.b))
        session.flush()
        return True
    delay = min(2.0**crashes, MAX_BACKOFF_SECONDS) if wait else 0.0
    given_back = advance_chunk(
        session,
        chunk.id,
        attempt,
        ChunkState.PENDING,
        crashes=crashes,
        not_before=now_sql() + delay,
        **_NO_COUNTS,
    )
    return given_back is not None


def load(database: Database, chunk_id: str) -> Chunk | None:
    """The chunk as it is now."""
    with database.read() as session:
        return session.get(Chunk, chunk_id)


def iter_chunks(database: Database, job_id: str, states: Collection[ChunkState]) -> Iterator[Chunk]:
    """A job's chunks in these states, by ``first_line``, read a page at a time."""
    place = tuple_(col(Chunk.first_line), col(Chunk.id))
    query = (
        select(Chunk)
        .where(col(Chunk.job_id) == job_id, col(Chunk.state).in_(states))
        .order_by(col(Chunk.first_line), col(Chunk.id))
        .limit(PAGE_ROWS)
    )
    page = query
    while True:
        with database.read() as session:
            rows = list(session.scalars(page))
        yield from rows
        if len(rows) < PAGE_ROWS:
            return
        page = query.where(place > tuple_(rows[-1].first_line, rows[-1].id))


def claimable() -> Any:
    """``SELECT`` of the chunks that may be claimed now, as far as their jobs and time go."""
    return (
        select(Chunk)
        .join(Job, col(Job.id) == col(Chunk.job_id))
        .where(
            col(Chunk.state) == ChunkState.PENDING,
            col(Chunk.not_before) <= now_sql(),
            col(Job.state) == JobState.RUNNING,
            col(Job.cancel).is_(None),
        )
    )


def poisoned(max_crashes: int) -> ColumnElement[bool]:
    """Single lines that have crashed ``max_crashes`` times."""
    return and_(col(Chunk.b) - col(Chunk.a) == 1, col(Chunk.crashes) >= max_crashes)


def _claim(
    database: Database, owner: str, *wanted: ColumnElement[bool], lease_seconds: float
) -> Chunk | None:
    chosen = (
        claimable()
        .where(*wanted)
        .with_only_columns(col(Chunk.id))
        .order_by(col(Job.priority).desc(), col(Job.created_at), col(Chunk.job_id), col(Chunk.a))
        .limit(1)
        .with_for_update(skip_locked=True, of=Chunk)
    )
    with database.write() as session:
        return first_row(
            session,
            update(Chunk)
            .where(
                col(Chunk.id) == chosen.scalar_subquery(),
                col(Chunk.state) == ChunkState.PENDING,
            )
            .values(
                state=ChunkState.LEASED,
                attempt=col(Chunk.attempt) + 1,
                owner=owner,
                lease_exp=now_sql() + lease_seconds,
                **_NO_COUNTS,
            )
            .returning(Chunk),
        )


def _child(parent: Chunk, a: int, b: int) -> Chunk:
    lines = b - a
    return Chunk(
        id=new_id("chunk"),
        job_id=parent.job_id,
        a=a,
        b=b,
        model=parent.model,
        # Half of a suspect is one too, and is split at its next crash; a single line starts anew.
        crashes=SPLIT_CRASHES - 1 if lines > 1 else 0,
        plan_key=parent.plan_key,
        plan_a=parent.plan_a,
        first_line=parent.first_line,
        last_line=parent.last_line,
        n_tokens=parent.n_tokens * lines // (parent.b - parent.a),
    )
