"""What commands print: data on stdout, everything said to a person on stderr."""

import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from tidemill.client.shapes import Batch
from tidemill.run.files import STDOUT
from tidemill.run.jobs import Outcome, Summary
from tidemill.run.outputs import Written
from tidemill.run.progress import detail_of, duration

SHOWN_PROBLEMS = 20
SHOWN_FAILURES = 8


def stderr() -> Console:
    """A console for what is said to a person."""
    return Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """Data for a program: one JSON document on stdout."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2)
    sys.stdout.write(text.decode() + "\n")


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Data for a person: a table on a terminal, tab-separated lines elsewhere."""
    if not sys.stdout.isatty():
        for row in (headers, *rows):
            sys.stdout.write("\t".join(row) + "\n")
        return
    table = Table(*headers, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*row)
    Console(highlight=False).print(table, markup=False)


def print_outcome(outcome: Outcome, *, quiet: bool) -> None:
    """The end of ``tidemill run``, on stderr; why it failed is said even when quiet."""
    if outcome.batch.status == "failed":
        print_problems(outcome.batch)
    elif not quiet:
        print_summary(outcome.summary, interrupted=outcome.interrupted)


def print_summary(summary: Summary, *, interrupted: bool = False) -> None:
    """The end of a job, on stderr."""
    lines = []
    if interrupted:
        lines.append("Cancelled. What was done until then is kept.")
    elif summary.status != "completed":
        lines.append(f"The batch is {summary.status}.")
    failed = f", {summary.failed:,} failed" if summary.failed else ""
    lines.append(
        f"{summary.answered:,} of {summary.rows:,} rows answered{failed}, "
        f"in {duration(summary.seconds)}"
    )
    if summary.prompt_tokens:
        rate = summary.tokens_per_second
        lines.append(
            f"{summary.prompt_tokens + summary.output_tokens:,} tokens"
            + (f", {rate:,.0f} a second" if rate else "")
            + f"; {summary.prefix_cache_share:.1%} of the prompt tokens came from the prefix cache"
        )
    if summary.output and summary.output != "-":
        lines.append(f"Output: {summary.output}")
    if summary.errors:
        lines.append(f"Errors: {summary.errors}")
    if summary.failures:
        shown = list(summary.failures.items())[:SHOWN_FAILURES]
        lines.append("Failed: " + ", ".join(f"{count:,} {code}" for code, count in shown))
    console = stderr()
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def say_written(batch: Batch, written: Written) -> None:
    """Where a batch's results went, on stderr."""
    console = stderr()
    for label, path in (("Output", written.output), ("Errors", written.errors)):
        if path is not None and path != STDOUT:
            console.print(f"{label}: {path}", markup=False, soft_wrap=True)
    if batch.request_counts.failed and written.errors is None:
        console.print(f"{batch.request_counts.failed:,} lines failed; --errors FILE fetches them.")


def print_problems(batch: Batch) -> None:
    """Why a batch failed validation, on stderr."""
    problems = batch.errors.data if batch.errors else []
    console = stderr()
    console.print(f"The batch {batch.id} failed validation:", markup=False, soft_wrap=True)
    for problem in problems[:SHOWN_PROBLEMS]:
        place = f"line {problem.line}: " if problem.line else ""
        text = f"  {place}{problem.message or ''} [{problem.code}]"
        console.print(text, markup=False, soft_wrap=True)
    if len(problems) > SHOWN_PROBLEMS:
        console.print(f"  … and {len(problems) - SHOWN_PROBLEMS:,} more in the batch's errors")
    if batch.tidemill and batch.tidemill.report_file_id:
        console.print(
            f"All of them are in the file {batch.tidemill.report_file_id}.",
            markup=False,
            soft_wrap=True,
        )


BATCH_HEADERS = ("id", "status", "model", "rows", "failed", "created")


def batch_row(batch: Batch) -> tuple[str, ...]:
    """One batch of a list."""
    counts = batch.request_counts
    done = counts.completed + counts.failed
    return (
        batch.id,
        _status(batch),
        batch.model or "",
        f"{done}/{counts.total}",
        str(counts.failed),
        _time(batch.created_at),
    )


def describe(batch: Batch) -> list[tuple[str, str]]:
    """A batch, field by field, as far as there is something to say."""
    counts, usage = batch.request_counts, batch.usage
    done = counts.completed + counts.failed
    fields = [
        ("id", batch.id),
        ("status", _status(batch)),
        ("retry of", batch.retry_of or ""),
        ("endpoint", batch.endpoint),
        ("model", batch.model or ""),
        ("rows", f"{done} of {counts.total} done, {counts.failed} failed"),
        ("progress", "" if batch.finished else detail_of(batch)),
        ("waiting for", batch.waiting_for.message if batch.waiting_for else ""),
        ("created", _time(batch.created_at)),
        ("expires", _time(batch.expires_at) if not batch.finished else ""),
        ("input file", batch.input_file_id),
        ("output file", batch.output_file_id or ""),
        ("error file", batch.error_file_id or ""),
    ]
    if usage is not None and usage.total_tokens:
        text = f"{usage.total_tokens:,} ({usage.cached_share:.1%} of the prompt from the cache)"
        fields.append(("tokens", text))
    problems = batch.errors.data if batch.errors else []
    fields += [("problem", f"line {p.line}: {p.message}") for p in problems[:SHOWN_PROBLEMS]]
    return [(name, value) for name, value in fields if value]


def _status(batch: Batch) -> str:
    kept = "paused" if batch.paused else "waiting" if batch.waiting_for else ""
    return f"{batch.status}, {kept}" if kept else batch.status


def _time(seconds: int | None) -> str:
    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
