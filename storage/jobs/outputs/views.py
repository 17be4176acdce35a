"""What is told of an output: to the batch's owner, and in the manifest."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlmodel import Session, col

from storage.database.connection import Database
from storage.database.states import OutputState, ShardState
from storage.database.tables import Job, Output, Shard
from storage.datasets.values.output_options import OUTPUT_KEY


@dataclass(frozen=True, slots=True)
class OutputView:
    """How far an output is written.

    Attributes:
        problem: what keeps it from being written now.
        failure: why it was given up.
    """

    uri: str
    format: str
    shards_written: int
    shards_total: int | None
    rows_written: int
    problem: Mapping[str, Any] | None = None
    failure: Mapping[str, Any] | None = None


def view_outputs(database: Database, jobs: Collection[Job]) -> dict[str, OutputView]:
    """The outputs of those of these jobs that have one, by the jobs' ids."""
    ids = [job.id for job in jobs if OUTPUT_KEY in job.options]
    if not ids:
        return {}
    written = col(Shard.state) == ShardState.WRITTEN
    counts = (
        select(
            col(Shard.job_id),
            func.count(),
            func.count().filter(written),
            func.coalesce(func.sum(col(Shard.n_rows)).filter(written), 0),
        )
        .where(col(Shard.job_id).in_(ids))
        .group_by(col(Shard.job_id))
    )
    with database.read() as session:
        found = {job_id: numbers for job_id, *numbers in session.execute(counts)}
        outputs = list(session.scalars(select(Output).where(col(Output.job_id).in_(ids))))
    return {output.job_id: _view(output, found.get(output.job_id)) for output in outputs}


def written_shards(database: Database, job_id: str) -> tuple[Job, Sequence[Shard], int]:
    """A job, its shards that are written in their order, and how many it has in all."""
    query = select(Shard).where(col(Shard.job_id) == job_id).order_by(col(Shard.number))
    with database.read() as session:
        job = session.get_one(Job, job_id)
        shards = list(session.scalars(query))
    return job, [each for each in shards if each.state == ShardState.WRITTEN], len(shards)


def problem_of(session: Session, job_id: str) -> dict[str, Any] | None:
    """Why a job's output was given up, if it was."""
    output = session.get(Output, job_id)
    if output is None or output.state != OutputState.FAILED:
        return None
    return output.problem


def _view(output: Output, counts: Sequence[int] | None) -> OutputView:
    total, written, rows = map(int, counts) if counts else (None, 0, 0)
    problem = output.problem if output.state == OutputState.OPEN else None
    if problem is not None:
        problem = {**problem, "since": output.failing_since}
    failure = output.problem if output.state == OutputState.FAILED else None
    return OutputView(output.uri, output.format, written, total, rows, problem, failure)
