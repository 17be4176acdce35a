"""Chunks under lease: claim, renew, commit, release; `storage.jobs.crashes` has those that died.

Every claim raises the chunk's attempt, and every later write names it. A worker whose lease ran out
can therefore change nothing.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, not_, select, tuple_, update
from sqlmodel import Session, col

from storage.database.connection import Database, now_sql
from storage.database.states import ChunkState, JobState, StopReason
from storage.database.tables import Chunk, Job
from storage.estimates.engine_time import EngineTime
from storage.jobs.transitions import RenewResult, advance_chunk, lost

PAGE_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class Counts:
    """Of one attempt at a chunk: lines with an output, lines that are errors, and tokens used.

    ``generated_tokens`` counts an output once that several lines have.
    """

    ok: int = 0
    err: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    generated_tokens: int = 0

    def values(self) -> dict[str, int]:
        """As columns of the chunk."""
        return {
            "progress": self.ok + self.err,
            "n_ok": self.ok,
            "n_err": self.err,
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "completion_tokens": self.completion_tokens,
            "generated_tokens": self.generated_tokens,
        }


# The counts of a chunk that nobody runs.
NO_COUNTS = Counts().values()


@dataclass(frozen=True, slots=True)
class ChunkLease:
    """A leased chunk as its worker sees it: which attempt, and its counts so far."""

    chunk_id: str
    attempt: int
    counts: Counts


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
    with database.write() as session:
        found = claim_in(session, owner, *wanted, lease_seconds=lease_seconds)
    return found[0] if found else None


def claim_poison(
    database: Database, owner: str, *, lease_seconds: float, max_crashes: int
) -> Chunk | None:
    """Lease a single line that has crashed too often, to write its error and not to run it."""
    with database.write() as session:
        found = claim_in(session, owner, poisoned(max_crashes), lease_seconds=lease_seconds)
    return found[0] if found else None


def poison_chunks(database: Database, *, max_crashes: int, limit: int = 100) -> list[Chunk]:
    """Single lines that have crashed too often and wait for `claim_poison`."""
    query = claimable().where(poisoned(max_crashes)).limit(limit)
    with database.read() as session:
        return list(session.scalars(query))


def renew_chunk(
    database: Database, chunk_id: str, attempt: int, counts: Counts, *, lease_seconds: float
) -> RenewResult:
    """Renew the lease, report the attempt's counts, and learn whether the job is to stop."""
    lease = ChunkLease(chunk_id, attempt, counts)
    return renew_chunks(database, [lease], lease_seconds=lease_seconds)[chunk_id]


def renew_chunks(
    database: Database, leases: Sequence[ChunkLease], *, lease_seconds: float
) -> dict[str, RenewResult]:
    """Renew many leases in one transaction; by chunk, of which each is named once."""
    with database.write() as session:
        jobs = {}
        # In one order everywhere, so that two callers cannot deadlock.
        for lease in sorted(leases, key=lambda lease: lease.chunk_id):
            jobs[lease.chunk_id] = _renew(session, lease, lease_seconds)
        held = {job_id for job_id in jobs.values() if job_id is not None}
        stops = _stops(session, held)
    return {
        chunk_id: RenewResult(job_id is not None, stops.get(job_id or ""))
        for chunk_id, job_id in jobs.items()
    }


def stop_reasons(database: Database, job_ids: Collection[str]) -> dict[str, StopReason]:
    """Which of these jobs are to stop, and why: cheap enough to ask between two renewals."""
    with database.read() as session:
        return _stops(session, job_ids)


def _renew(session: Session, lease: ChunkLease, lease_seconds: float) -> str | None:
    """The job of the chunk, if its lease was renewed."""
    return session.scalars(
        update(Chunk)
        .where(
            col(Chunk.id) == lease.chunk_id,
            col(Chunk.attempt) == lease.attempt,
            col(Chunk.state) == ChunkState.LEASED,
        )
        .values(lease_exp=now_sql() + lease_seconds, **lease.counts.values())
        .returning(col(Chunk.job_id)),
        execution_options={"synchronize_session": False},
    ).first()


def _stops(session: Session, job_ids: Collection[str]) -> dict[str, StopReason]:
    rows = session.execute(
        select(col(Job.id), col(Job.cancel)).where(
            col(Job.id).in_(job_ids), col(Job.cancel).is_not(None)
        )
    )
    return {job_id: StopReason(reason) for job_id, reason in rows}


def commit_chunk(
    database: Database,
    chunk_id: str,
    attempt: int,
    *,
    part_key: str,
    part_sha256: str,
    counts: Counts,
    took: EngineTime | None = None,
) -> Chunk:
    """Make a stored part the chunk's results; ``counts`` covers every line, ``took`` what ran.

    Raises:
        StateConflict: the lease is not this attempt's any more; the part will be deleted.
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
            **counts.values() | (took.values() if took else {}),
        )
        if chunk is not None:
            return chunk
        known = session.get(Chunk, chunk_id)
        if known is not None and known.state == ChunkState.DONE and known.part_key == part_key:
            return known  # this commit, whose reply was lost
        raise lost(session, Chunk, chunk_id)

    return database.settle(change)


def release_chunk(database: Database, chunk_id: str, attempt: int, *, delay: float = 0.0) -> None:
    """Give a chunk back without counting a crash; claimable after ``delay`` seconds.

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
            **NO_COUNTS,
        )
        if released is None:
            raise lost(session, Chunk, chunk_id)


def load(database: Database, chunk_id: str) -> Chunk | None:
    """The chunk as it is now."""
    with database.read() as session:
        return session.get(Chunk, chunk_id)


def iter_chunks(
    database: Database,
    job_id: str,
    states: Collection[ChunkState],
    *,
    lines: tuple[int, int] = (1, 2**63 - 1),
) -> Iterator[Chunk]:
    """A job's chunks in these states that begin within ``lines``, in order, a page at a time."""
    place = tuple_(col(Chunk.first_line), col(Chunk.id))
    query = (
        select(Chunk)
        .where(col(Chunk.job_id) == job_id, col(Chunk.state).in_(states))
        .where(col(Chunk.first_line).between(*lines))
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
    """``SELECT`` of the pending chunks whose job runs and whose ``not_before`` has passed."""
    return (
        select(Chunk)
        .join(Job, col(Job.id) == col(Chunk.job_id))
        .where(
            col(Chunk.state) == ChunkState.PENDING,
            col(Chunk.not_before) <= now_sql(),
            col(Job.state) == JobState.RUNNING,
            col(Job.cancel).is_(None),
            col(Job.paused_at).is_(None),
        )
    )


def poisoned(max_crashes: int) -> ColumnElement[bool]:
    """Single lines that have crashed ``max_crashes`` times."""
    return and_(col(Chunk.b) - col(Chunk.a) == 1, col(Chunk.crashes) >= max_crashes)


def claim_order() -> tuple[ColumnElement[Any], ...]:
    """The order of claims: the job's priority, then its age, then the plan's order."""
    return (
        col(Job.priority).desc(),
        col(Job.created_at).asc(),
        col(Chunk.job_id).asc(),
        col(Chunk.a).asc(),
    )


def claim_in(
    session: Session,
    owner: str,
    *wanted: ColumnElement[bool],
    lease_seconds: float,
    limit: int = 1,
) -> list[Chunk]:
    """Lease at most ``limit`` claimable chunks that fulfil ``wanted``, in any order."""
    chosen = (
        claimable()
        .where(*wanted)
        .with_only_columns(col(Chunk.id))
        .order_by(*claim_order())
        .limit(limit)
        .with_for_update(skip_locked=True, of=Chunk)
        .cte("chosen")  # as a subquery, PostgreSQL might evaluate it more than once
    )
    claimed = (
        update(Chunk)
        .where(col(Chunk.id).in_(select(chosen.c.id)), col(Chunk.state) == ChunkState.PENDING)
        .values(
            state=ChunkState.LEASED,
            attempt=col(Chunk.attempt) + 1,
            owner=owner,
            lease_exp=now_sql() + lease_seconds,
            **NO_COUNTS,
        )
        .returning(Chunk)
    )
    options = {"synchronize_session": False, "populate_existing": True}
    return list(session.scalars(claimed, execution_options=options))
