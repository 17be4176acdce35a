"""What the rows say of the past: what chunks took, and how long outputs of like jobs were."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select
from sqlmodel import Session, col

from storage.database.connection import Database
from storage.database.states import TERMINAL_JOB_STATES, ChunkState, JobState
from storage.database.tables import Chunk, Job
from storage.estimates.lengths import Seen
from storage.estimates.rates import Measured
from storage.estimates.work import Work

_CHUNKS = 100
_ALIKE_JOBS = 10
_LEAST_SECONDS = 0.1  # of a shorter chunk, most is not the model's
_JOBS_AHEAD = 100


@dataclass(frozen=True, slots=True)
class ModelPast:
    """What a model's latest chunks took on the device where it ran last.

    Attributes:
        device: what its engine was rated as; ``None`` where nothing was measured.
        measured: one entry a job.
        alike: of those, the entries of jobs that are like the one asked about.
    """

    device: str | None = None
    measured: Sequence[Measured] = ()
    alike: Sequence[Measured] = ()


@dataclass(frozen=True, slots=True)
class Past:
    """What is known for an estimate: by model, and of jobs that are alike."""

    models: dict[str, ModelPast] = field(default_factory=dict)
    alike: Sequence[Seen] = ()


def past_of(
    database: Database, job: Job, likeness: str, models: Collection[str], sample: str | None
) -> Past:
    """What is known for the estimate of a job.

    Args:
        likeness: what its rows have in common (`Job.likeness`).
        models: those that its lines name.
        sample: the job that ran some of its rows, if one did.
    """
    with database.read() as session:
        alike = [sample] if sample else _alike(session, job, likeness)
        return Past(
            {model: _model_past(session, model, alike) for model in models},
            () if sample else _seen(session, alike),
        )


def seconds_ahead(database: Database, job: Job) -> float:
    """Device time of the jobs that run before this one, by their own estimates."""
    done = func.sum(col(Chunk.b) - col(Chunk.a)).filter(col(Chunk.state) == ChunkState.DONE)
    ahead = (
        select(col(Job.id), col(Job.estimate), col(Job.n_lines))
        .where(
            col(Job.state) == JobState.RUNNING,
            col(Job.priority) >= job.priority,
            col(Job.cancel).is_(None),
            col(Job.paused_at).is_(None),
        )
        .limit(_JOBS_AHEAD)
    )
    total = 0.0
    with database.read() as session:
        rows = session.execute(ahead).all()
        ids = [row[0] for row in rows]
        sums = session.execute(
            select(col(Chunk.job_id), func.coalesce(done, 0))
            .where(col(Chunk.job_id).in_(ids))
            .group_by(col(Chunk.job_id))
        )
        done_lines = {job_id: int(lines) for job_id, lines in sums}
    for job_id, estimate, lines in rows:
        if estimate and lines:
            left = 1.0 - done_lines.get(job_id, 0) / lines
            total += left * float(estimate["device_seconds"]["expected"])
    return total


def _alike(session: Session, job: Job, likeness: str) -> list[str]:
    """Ids of the tenant's latest jobs that ended and are like this one."""
    query = (
        select(col(Job.id))
        .where(
            col(Job.tenant_id) == job.tenant_id,
            col(Job.likeness) == likeness,
            col(Job.endpoint) == job.endpoint,
            col(Job.state).in_(TERMINAL_JOB_STATES),
            col(Job.n_ok) > 0,
        )
        .order_by(col(Job.created_at).desc())
        .limit(_ALIKE_JOBS)
    )
    return list(session.scalars(query))


def _seen(session: Session, job_ids: Collection[str]) -> list[Seen]:
    query = select(
        col(Job.n_ok), col(Job.completion_tokens), col(Job.n_lines), col(Job.estimate)
    ).where(col(Job.id).in_(job_ids))
    found = []
    for n_ok, tokens, n_lines, estimate in session.execute(query):
        rows = (estimate or {}).get("rows", n_lines) - (estimate or {}).get("invalid_rows", 0)
        most = (estimate or {}).get("output_tokens", {}).get("most", 0)
        found.append(Seen(n_ok, tokens, round(most * n_ok / rows) if rows else 0))
    return found


def _model_past(session: Session, model: str, alike: Collection[str]) -> ModelPast:
    done = (
        col(Chunk.model) == model,
        col(Chunk.done_at).is_not(None),
        col(Chunk.device).is_not(None),
        col(Chunk.seconds) >= _LEAST_SECONDS,
    )
    latest = col(Chunk.done_at).desc()
    device = session.scalars(
        select(col(Chunk.device)).where(*done).order_by(latest).limit(1)
    ).first()
    if device is None:
        return ModelPast()
    amounts = select(
        col(Chunk.job_id),
        col(Chunk.prompt_tokens) - col(Chunk.cached_tokens),
        col(Chunk.generated_tokens),
        col(Chunk.steps),
        col(Chunk.seconds),
    ).where(*done, col(Chunk.device) == device)
    recent = session.execute(amounts.order_by(latest).limit(_CHUNKS)).all()
    like = session.execute(
        amounts.where(col(Chunk.job_id).in_(alike)).order_by(latest).limit(_CHUNKS)
    ).all()
    return ModelPast(device, _by_job(recent), _by_job(like))


def _by_job(chunks: Iterable[Sequence[Any]]) -> list[Measured]:
    """Sums over each job's chunks, in which the time of one that is its neighbour's evens out."""
    sums: defaultdict[str, list[float]] = defaultdict(lambda: [0.0] * 4)
    for job_id, *amounts in chunks:
        for place, amount in enumerate(amounts):
            sums[str(job_id)][place] += float(amount)
    return [Measured(Work(*amounts[:3]), amounts[3]) for amounts in sums.values()]
