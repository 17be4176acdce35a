"""The keys of all objects, built here alone and from ids alone."""

from typing import Literal
from urllib.parse import quote

ResultKind = Literal["output", "errors", "report"]
UPLOADS = "files/"  # the prefix of every upload


def upload(tenant_id: str, file_id: str) -> str:
    """An uploaded file."""
    return f"{UPLOADS}{_escaped(tenant_id)}/{file_id}"


def plan(job_id: str, epoch: int, a: int, b: int) -> str:
    """The plan file of lines ``[a, b)``, written by the planner of this epoch."""
    return f"{plans(job_id)}{epoch}/{a}-{b}.arrow"


def rows(job_id: str, epoch: int, number: int) -> str:
    """What the input says of the rows of one shard, written by the planner of this epoch."""
    return f"{plans(job_id)}{epoch}/rows-{number:05}.parquet"


def plans(job_id: str) -> str:
    """The prefix of all of a job's plan files, and of the rows of its shards."""
    return f"plans/{job_id}/"


def part(job_id: str, a: int, b: int, attempt: int) -> str:
    """The results of lines ``[a, b)`` by one attempt; each attempt has a key of its own."""
    return f"{parts(job_id)}{a}-{b}/{attempt}.jsonl"


def parts(job_id: str) -> str:
    """The prefix of all of a job's parts."""
    return f"parts/{job_id}/"


def result(job_id: str, epoch: int, kind: ResultKind) -> str:
    """A result file, written by the finalizer of this epoch; a report, by the planner of it."""
    return f"{results(job_id)}{epoch}/{kind}.jsonl"


def results(job_id: str) -> str:
    """The prefix of a job's result files, those of lost epochs included."""
    return f"results/{job_id}/"


def _escaped(name: str) -> str:
    """A tenant's name as one harmless path segment."""
    return quote(name, safe="").replace(".", "%2E")
