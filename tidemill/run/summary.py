"""How a job went: its counts, its speed, and why rows failed."""

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from msgspec import Struct

from storage.datasets.readers.results import read_results
from storage.datasets.values.results import Result, ResultError
from storage.datasets.values.sources import shown
from tidemill.client.client import Client
from tidemill.client.shapes import Batch, Usage
from tidemill.run.dataset_errors import dataset_errors
from tidemill.run.outputs import Written

MAX_FAILURES_READ = 100_000
MAX_REASONS = 1_000
_NUMBER = re.compile(r"\d+")


class Reason(Struct, frozen=True):
    """Why some rows failed: those whose errors differ in numbers alone.

    Attributes:
        count: how many rows.
        row: the first of them, by its number in a plain input.
        custom_id: the first of them, by its id.
        message: what the service said of the first.
        file: of a dataset, the file that this row is in.
    """

    count: int
    code: str
    param: str | None
    row: int | None
    custom_id: str | None
    message: str
    file: str | None = None


class Summary(Struct, frozen=True):
    """How a job went. ``tokens_per_second`` counts prompt and output over the time of running."""

    batch_id: str
    status: str
    rows: int
    answered: int
    failed: int
    seconds: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    tokens_per_second: float | None
    prefix_cache_share: float
    output: str | None
    errors: str | None
    failures: dict[str, int]
    reasons: list[Reason]


def summarize(client: Client, batch: Batch, written: Written, started: float) -> Summary:
    """Sum a finished job up; ``started`` is a reading of `time.monotonic`."""
    counts, usage = batch.request_counts, batch.usage or Usage()
    progress = batch.tidemill.progress if batch.tidemill else None
    reasons = reasons_of(client, batch)
    failures: dict[str, int] = {}
    for reason in reasons:
        failures[reason.code] = failures.get(reason.code, 0) + reason.count
    return Summary(
        batch_id=batch.id,
        status=batch.status,
        rows=counts.total,
        answered=counts.completed,
        failed=counts.failed,
        seconds=round(time.monotonic() - started, 3),
        prompt_tokens=usage.input_tokens,
        cached_tokens=usage.input_tokens_details.cached_tokens,
        output_tokens=usage.output_tokens,
        tokens_per_second=progress.tokens_per_second if progress else None,
        prefix_cache_share=round(usage.cached_share, 4),
        output=shown(str(written.output)) if written.output else None,
        errors=shown(str(written.errors)) if written.errors else None,
        failures=dict(sorted(failures.items(), key=lambda item: -item[1])),
        reasons=reasons,
    )


def reasons_of(client: Client, batch: Batch) -> list[Reason]:
    """Why lines failed, the most frequent reason first; empty where very many failed.

    Raises:
        ClientError: the error file cannot be read.
    """
    if batch.error_file_id is None or batch.request_counts.failed > MAX_FAILURES_READ:
        return []
    with dataset_errors(), client.download(batch.error_file_id) as pieces:
        return group_reasons(read_results(pieces))


def group_reasons(results: Iterable[Result]) -> list[Reason]:
    """The reasons of results that failed, the most frequent first."""
    groups = _Groups()
    for result in results:
        if result.error is not None:
            groups.add(result, result.error)
    return groups.reasons()


@dataclass(slots=True)
class _Group:
    first: Result
    error: ResultError
    count: int = 0


@dataclass(slots=True)
class _Groups:
    """Errors by their code, parameter and message, numbers aside."""

    found: dict[tuple[str, str, str], _Group] = field(default_factory=dict)

    def add(self, result: Result, error: ResultError) -> None:
        code = error.code or "unknown"
        key = (code, error.param or "", _NUMBER.sub("#", error.message or ""))
        if key not in self.found and len(self.found) >= MAX_REASONS:
            key = (code, "", "")
        self.found.setdefault(key, _Group(result, error)).count += 1

    def reasons(self) -> list[Reason]:
        ordered = sorted(self.found.values(), key=lambda group: -group.count)
        return [_reason(group) for group in ordered]


def _reason(group: _Group) -> Reason:
    first, error = group.first, group.error
    file, row = (first.origin.file, first.origin.row) if first.origin else (None, first.row)
    code = error.code or "unknown"
    return Reason(group.count, code, error.param, row, first.custom_id, error.message or "", file)
