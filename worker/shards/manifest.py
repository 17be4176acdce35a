"""The manifest of an output: which shards are whole, and how far the job is.

It is replaced as a whole after each shard, and once more when the job has ended. It lists what the
rows say is written, and nothing else.
"""

import orjson

from storage.database.connection import Database
from storage.database.states import TERMINAL_JOB_STATES, JobState
from storage.database.tables import Job, Output, Shard
from storage.datasets.values.dataset_options import OPTIONS_KEY
from storage.jobs.outputs.views import written_shards
from worker.shards.places import Place

MANIFEST = "manifest.json"
SUCCESS = "_SUCCESS"
VERSION = 1
INCOMPLETE = "incomplete"  # the place could not be written for too long


def write_manifest(database: Database, place: Place, output: Output, state: str = "") -> None:
    """Write what the rows say now.

    What a writer that was held up has written may be old by then, so the rows are read again until
    they say what was written.

    Args:
        state: where it is not the job's own.

    Raises:
        OutputUnwritable: the place refuses it.
        StorageError: the database is away.
    """
    written = b""
    while (now := _encoded(database, output, state)) != written:
        place.put(MANIFEST, now)
        written = now


def _encoded(database: Database, output: Output, state: str) -> bytes:
    job, shards, total = written_shards(database, output.job_id)
    listed, rows = [], 0
    for shard in shards:
        listed.append(_entry(shard, rows + 1))
        rows += shard.n_rows
    manifest = {
        "tidemill_manifest": VERSION,
        "batch": job.id,
        "state": state or _state(job, len(shards), total, rows),
        "format": output.format,
        "input": _input(job),
        "columns": output.columns or [],
        "rows": rows,
        "rows_total": job.n_lines,
        "shards_total": total,
        "shards": listed,
    }
    return orjson.dumps(manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _state(job: Job, written: int, total: int, rows: int) -> str:
    """The job's; one that has ended, but not its shards, is running here."""
    unfinished = rows != job.n_lines if job.state == JobState.COMPLETED else written < total
    if job.state not in TERMINAL_JOB_STATES or (unfinished and job.state != JobState.FAILED):
        return "running"
    return job.state


def _entry(shard: Shard, first_row: int) -> dict[str, object]:
    return {
        "file": shard.file,
        "first_row": first_row,
        "rows": shard.n_rows,
        "bytes": shard.size,
        "sha256": shard.sha256,
    }


def _input(job: Job) -> object:
    return job.options.get(OPTIONS_KEY, {}).get("input_uri") or job.input_file_id
