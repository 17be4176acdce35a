"""The progress of jobs: always sums over their chunks."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from sqlalchemy import ColumnElement, func, select
from sqlmodel import Session, col

from storage.database.states import ChunkState
from storage.database.tables import Chunk


@dataclass(frozen=True, slots=True)
class JobProgress:
    """Sums over a job's chunks: what is committed, and what running attempts last reported.

    ``n_cancelled`` counts lines that will never run; each becomes an error line.
    ``planned_tokens`` are the prompts' tokens of all lines. ``running`` counts the chunks that
    workers hold. ``engine_seconds`` is engines' time for what is committed.
    """

    n_ok: int = 0
    n_err: int = 0
    n_cancelled: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    planned_tokens: int = 0
    running: int = 0
    generated_tokens: int = 0
    engine_seconds: float = 0.0

    @property
    def done(self) -> int:
        """Lines that have a result, good or bad."""
        return self.n_ok + self.n_err


def totals(session: Session, *guards: ColumnElement[bool]) -> dict[str, JobProgress]:
    """The sums over the chunks that fulfil ``guards``, by job; jobs without any are left out."""
    cancelled = col(Chunk.state) == ChunkState.CANCELLED
    zero = func.coalesce
    rows = session.execute(
        select(
            col(Chunk.job_id),
            func.sum(col(Chunk.n_ok)),
            func.sum(col(Chunk.n_err)),
            zero(func.sum(col(Chunk.b) - col(Chunk.a)).filter(cancelled), 0),
            func.sum(col(Chunk.prompt_tokens)),
            func.sum(col(Chunk.cached_tokens)),
            func.sum(col(Chunk.completion_tokens)),
            func.sum(col(Chunk.n_tokens)),
            func.count().filter(col(Chunk.state) == ChunkState.LEASED),
            func.sum(col(Chunk.generated_tokens)),
            func.sum(col(Chunk.seconds)),
        )
        # A split chunk's lines are counted in its children.
        .where(col(Chunk.state) != ChunkState.SPLIT, *guards)
        .group_by(col(Chunk.job_id))
    )
    return {
        job_id: replace(JobProgress(*map(int, sums)), engine_seconds=float(seconds))
        for job_id, *sums, seconds in rows
    }


def progress_of(session: Session, job_ids: Iterable[str]) -> dict[str, JobProgress]:
    """The progress of each of these jobs; all zeros for one without chunks."""
    ids = list(job_ids)
    sums = totals(session, col(Chunk.job_id).in_(ids))
    return {job_id: sums.get(job_id, JobProgress()) for job_id in ids}
