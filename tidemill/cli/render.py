"""What commands print: data on stdout, everything said to a person on stderr."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import msgspec

from tidemill import terminal
from tidemill.client.shapes import Batch
from tidemill.run.files import STDOUT
from tidemill.run.jobs import Outcome
from tidemill.run.outputs import Written
from tidemill.run.progress import detail_of, duration
from tidemill.run.summary import Reason, Summary

SHOWN_PROBLEMS = 20
SHOWN_REASONS = 5
WIDEST = 1_000_000  # characters of a table: no terminal is wider
REASONS = {
    "batch_cancelled": "not run, as the batch was cancelled",
    "batch_expired": "not run, as the completion window ended",
    "context_length_exceeded": "prompt too long",
    "duplicate_custom_id": "custom_id used twice",
    "empty_array": "empty list",
    "invalid_json_line": "not JSON",
    "invalid_type": "value of the wrong type",
    "invalid_value": "value that is not allowed",
    "missing_required_parameter": "parameter missing",
    "model_not_found": "no such model",
    "unknown_parameter": "unknown parameter",
    "unsupported_parameter": "parameter not supported",
}


def print_json(value: Any) -> None:
    """Data for a program: one JSON document on stdout."""
    terminal.put_json(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


@contextmanager
def shown_at_the_end(as_json: bool, *, several: bool) -> Iterator[list[Any]]:
    """A list of what was done, which is printed as JSON though what comes after it fails.

    Args:
        as_json: whether it is printed at all.
        several: whether as a list; else it is the one thing in it.
    """
    done: list[Any] = []
    try:
        yield done
    finally:
        if as_json and done:
            print_json(done if several else done[0])


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Data for a person: a table on a terminal, tab-separated lines elsewhere.

    On a terminal long cells go on in the next line, but between words alone: an id or a path is
    never cut, even where the terminal is narrower.
    """
    if terminal.is_terminal():
        terminal.put_text(_table(headers, rows))
        return
    for row in (headers, *rows):
        terminal.put_row(row)


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    cells = [[Text(terminal.printable(cell)) for cell in row] for row in rows]
    console = Console(highlight=False, markup=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    unbounded = console.options.update(max_width=WIDEST)
    needed = 0
    for header, column in zip(headers, zip(*cells, strict=True) if cells else headers, strict=True):
        words = [Measurement.get(console, unbounded, cell).minimum for cell in (header, *column)]
        table.add_column(header, min_width=max(words))
        needed += max(words) + 1
    for row in cells:
        table.add_row(*row)
    console.width = max(console.width, needed)
    with console.capture() as captured:
        console.print(table, crop=False)
    return captured.get()


def print_outcome(outcome: Outcome, *, quiet: bool) -> None:
    """The end of ``tidemill run``, on stderr; why it failed is said even when quiet."""
    if outcome.batch.status == "failed":
        print_problems(outcome.batch)
    elif not quiet:
        print_summary(outcome.summary, interrupted=outcome.interrupted)


def print_summary(summary: Summary, *, interrupted: bool = False) -> None:
    """The end of a job, on stderr."""
    lines = []
    if interrupted and summary.status == "cancelled":
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
    if summary.reasons:
        lines.append(f"{summary.failed:,} {'row' if summary.failed == 1 else 'rows'} failed:")
        lines += [reason_line(reason) for reason in summary.reasons[:SHOWN_REASONS]]
        rest = sum(reason.count for reason in summary.reasons[SHOWN_REASONS:])
        if rest:
            lines.append(f"  {rest:,} × other reasons")
    for line in lines:
        terminal.say(line)


def reason_line(reason: Reason) -> str:
    """Why some rows failed, with the first of them as an example."""
    words = REASONS.get(reason.code, reason.code.replace("_", " "))
    param = f" ({reason.param})" if reason.param else ""
    row = f"row {reason.row}" if reason.row is not None else repr(reason.custom_id)
    row += f" of {reason.file}" if reason.file else ""
    return f"  {reason.count:,} × {words}{param}, e.g. {row}: {reason.message}"


def say_written(batch: Batch, written: Written) -> None:
    """Where a batch's results went, on stderr."""
    for label, path in (("Output", written.output), ("Errors", written.errors)):
        if path is not None and path != STDOUT:
            terminal.say(f"{label}: {path}")
    if batch.request_counts.failed and written.errors is None:
        terminal.say(f"{batch.request_counts.failed:,} lines failed; --errors FILE fetches them.")


def print_problems(batch: Batch) -> None:
    """Why a batch failed validation, on stderr."""
    problems = batch.errors.data if batch.errors else []
    terminal.say(f"The batch {batch.id} failed validation:")
    for problem in problems[:SHOWN_PROBLEMS]:
        terminal.say(f"  {problem.place}{problem.message or ''} [{problem.code}]")
    if len(problems) > SHOWN_PROBLEMS:
        terminal.say(f"  … and {len(problems) - SHOWN_PROBLEMS:,} more in the batch's errors")
    if batch.tidemill and batch.tidemill.report_file_id:
        terminal.say(f"All of them are in the file {batch.tidemill.report_file_id}.")


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
        ("written", _shards(batch)),
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
    fields += [("problem", f"{p.place}{p.message}") for p in problems[:SHOWN_PROBLEMS]]
    return [(name, value) for name, value in fields if value]


def _shards(batch: Batch) -> str:
    written = batch.shards
    if written is None:
        return ""
    of_all = "" if written.shards_total is None else f" of {written.shards_total:,}"
    count = f"{written.shards_written:,}{of_all} shards, {written.rows_written:,} rows"
    return f"{count} in {written.uri}"


def _status(batch: Batch) -> str:
    kept = "paused" if batch.paused else "waiting" if batch.waiting_for else ""
    return f"{batch.status}, {kept}" if kept else batch.status


def _time(seconds: int | None) -> str:
    if seconds is None:
        return ""
    try:
        return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):  # no date of a calendar's
        return str(seconds)
