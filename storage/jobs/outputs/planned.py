"""The rows of an output and of its shards, as a job is created and planned."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, update
from sqlmodel import Session, col

from storage.database.connection import insert_if_absent
from storage.database.tables import Job, Output, Shard
from storage.datasets.values.output_options import OUTPUT_KEY
from storage.errors import OutputError, PlanInvalid

IN_USE = "output_in_use"
_INSERT_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class PlannedShard:
    """The rows of one window; ``rows_key`` names the object with what the input says of them.

    No other shard has lines between the first and the last one, both of them included.
    """

    first_line: int
    last_line: int
    n_rows: int
    rows_key: str


def add_output(session: Session, job: Job) -> None:
    """Note where a new job's results are to be written, if its options say so.

    Raises:
        OutputError: another job writes there.
    """
    said: dict[str, Any] | None = job.options.get(OUTPUT_KEY)
    if said is None or session.get(Output, job.id) is not None:
        return
    values = {"job_id": job.id, "uri": said["uri"], "format": said["format"]}
    insert_if_absent(session, Output, values)
    if session.get(Output, job.id) is None:
        raise OutputError(
            f"Another batch is writing its results to '{said['uri']}'; give each batch a folder or "
            "prefix of its own.",
            IN_USE,
        )


def add_shards(
    session: Session,
    job_id: str,
    n_lines: int,
    shards: Sequence[PlannedShard],
    columns: Sequence[dict[str, str]],
) -> None:
    """Insert the shards of a job that has an output, in the plan's own transaction.

    Raises:
        PlanInvalid: they are not as many rows as the plan has lines, or not in order.
    """
    if not shards:
        return
    at = 0
    for shard in shards:
        if not at < shard.first_line <= shard.last_line:
            raise PlanInvalid(f"A shard begins at line {shard.first_line}, after line {at}.")
        at = shard.last_line
    rows = sum(shard.n_rows for shard in shards)
    if rows != n_lines:
        raise PlanInvalid(f"The shards have {rows} rows of {n_lines} lines.")
    for start in range(0, len(shards), _INSERT_ROWS):
        values = [
            {"job_id": job_id, "number": number, **_values(shards[number])}
            for number in range(start, min(start + _INSERT_ROWS, len(shards)))
        ]
        session.execute(insert(Shard), values)
    session.execute(
        update(Output).where(col(Output.job_id) == job_id).values(columns=list(columns)),
        execution_options={"synchronize_session": False},
    )


def _values(shard: PlannedShard) -> dict[str, Any]:
    return {
        "first_line": shard.first_line,
        "last_line": shard.last_line,
        "n_rows": shard.n_rows,
        "rows_key": shard.rows_key,
    }
