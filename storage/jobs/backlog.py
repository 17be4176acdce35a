"""How much work waits and runs: for metrics, and for scaling workers on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlmodel import Session, col

from storage.database.connection import Database, now_sql
from storage.database.states import LIVE_CHUNK_STATES, LIVE_JOB_STATES, ChunkState, JobState
from storage.database.tables import Chunk, Job, Model


@dataclass(frozen=True, slots=True)
class Work:
    """Live chunks of one model in one state: how many, their lines, their prompts' tokens."""

    model: str
    state: ChunkState
    chunks: int = 0
    lines: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Backlog:
    """All unfinished work.

    Attributes:
        jobs: jobs by state, for every live state.
        paused: how many of them are paused; their chunks are not in ``work``.
        work: an entry for each known model in each live state, empty ones included.
        expired_leases: expired leases whose chunks were not given back yet.
        oldest_seconds: the age of the oldest live job; zero where there is none.
    """

    jobs: Mapping[JobState, int]
    paused: int
    work: Sequence[Work]
    expired_leases: int
    oldest_seconds: float


def read_backlog(database: Database) -> Backlog:
    """Read it in one transaction. Only live rows are touched, so this stays quick.

    Raises:
        DatabaseUnavailable: the database is away.
    """
    live = col(Job.state).in_(LIVE_JOB_STATES)
    with database.read() as session:
        states = session.execute(
            select(col(Job.state), func.count()).where(live).group_by(col(Job.state))
        )
        counted = {JobState(state): int(count) for state, count in states}
        paused, oldest = session.execute(
            select(func.count(col(Job.paused_at)), now_sql() - func.min(col(Job.created_at))).where(
                live
            )
        ).one()
        expired = session.scalars(
            select(func.count()).where(
                col(Chunk.state) == ChunkState.LEASED, col(Chunk.lease_exp) <= now_sql()
            )
        ).one()
        work = _work(session)
    return Backlog(
        jobs={state: counted.get(state, 0) for state in sorted(LIVE_JOB_STATES)},
        paused=int(paused),
        work=work,
        expired_leases=int(expired),
        oldest_seconds=max(0.0, float(oldest or 0.0)),
    )


def _work(session: Session) -> list[Work]:
    rows = session.execute(
        select(
            col(Chunk.model),
            col(Chunk.state),
            func.count(),
            func.sum(col(Chunk.b) - col(Chunk.a)),
            func.sum(col(Chunk.n_tokens)),
        )
        .join(Job, col(Job.id) == col(Chunk.job_id))
        .where(
            col(Chunk.state).in_(LIVE_CHUNK_STATES),
            col(Job.state) == JobState.RUNNING,
            col(Job.paused_at).is_(None),
        )
        .group_by(col(Chunk.model), col(Chunk.state))
    )
    found = {
        (model, ChunkState(state)): Work(model, ChunkState(state), *(int(sum_) for sum_ in sums))
        for model, state, *sums in rows
    }
    # A removed model may still have work; a model without work shows zeros.
    known = {model for model, _ in found} | set(session.scalars(select(col(Model.name))))
    keys = [(model, state) for model in sorted(known) for state in sorted(LIVE_CHUNK_STATES)]
    return [found.get(key, Work(*key)) for key in keys]
