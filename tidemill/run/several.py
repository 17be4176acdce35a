"""Several inputs in one command: a job each, with results of its own."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from storage.datasets.request_lines import RequestOptions
from storage.datasets.values.results import ResultColumns, check_names
from storage.datasets.values.sources import Kind, Source
from tidemill.errors import UsageError
from tidemill.exits import ExitCode
from tidemill.run.dataset_errors import dataset_errors
from tidemill.run.files import STDOUT, is_stream, output_path
from tidemill.run.formats import Format
from tidemill.run.jobs import Order, Outcome
from tidemill.run.targets import Target, check_targets, plan_target

if TYPE_CHECKING:
    from storage.datasets.templates.row_template import RowTemplate

_WORST_FIRST = (ExitCode.BATCH_FAILED, ExitCode.STOPPED, ExitCode.LINES_FAILED)


@dataclass(frozen=True, slots=True)
class Job:
    """One input on its way: what is sent for it, and where its results go."""

    path: Path
    source: Source
    order: Order
    target: Target


def plan_jobs(
    paths: Sequence[Path],
    sources: Sequence[Source],
    request: RequestOptions,
    *,
    output: Path | None,
    errors: Path | None,
    format: Format | None,
    answer_column: str,
) -> list[Job]:
    """A job for each input; everything about them that can be wrong is found now.

    Raises:
        UsageError: options do not fit an input, or results would overwrite something.
        TidemillError: a result cannot be written.
    """
    if len(paths) > 1:
        _check_shared("--output", output, streams=True)
        _check_shared("--errors", errors, streams=False)
    jobs = []
    for path, source in zip(paths, sources, strict=True):
        target = plan_target(
            path if source.path == path else Path(source.name),
            source.kind,
            output=output,
            errors=errors,
            format=format,
            answer_column=answer_column,
        )
        # The batch's own lines have none of the rows' fields, which may have any name then.
        named = None if target.format is Format.OPENAI else answer_column
        if named is not None and source.columns is not None:
            _check_columns(source, named)
        order = Order.of(source, replace(request, answer_column=named))
        jobs.append(Job(path, source, order, target))
    parquet = [job for job in jobs if job.target.format is Format.PARQUET]
    if len(jobs) > 1 and parquet and parquet[0].target.output == STDOUT:
        raise UsageError("Several Parquet files cannot follow each other on standard output.")
    check_targets((job.target, job.path if job.source.path == job.path else None) for job in jobs)
    return jobs


def _check_shared(option: str, path: Path | None, *, streams: bool) -> None:
    """Refuse one file for the results of several inputs."""
    if path is None or path.is_dir() or (streams and is_stream(output_path(path))):
        return
    raise UsageError(
        f"{option} {path} is no folder, and there are several inputs: name a folder that is there, "
        "or leave it out for a file beside each input."
    )


def _check_columns(source: Source, answer_column: str) -> None:
    from storage.datasets.templates.tables import column_names

    with dataset_errors():
        check_names(source.name, 1, column_names(source), ResultColumns.named(answer_column))


def needs_model(sources: Iterable[Source], template: "RowTemplate | None") -> bool:
    """Whether an input names no model itself, nor its template."""
    named = template is not None and template.names_model
    return any(source.kind is not Kind.REQUESTS and not named for source in sources)


def worst(codes: Iterable[ExitCode]) -> ExitCode:
    """The code that says most about several batches."""
    found = set(codes)
    return next((code for code in _WORST_FIRST if code in found), ExitCode.OK)


def what_is_left(outcome: Outcome, not_begun: Sequence[str]) -> str:
    """What to do after an interruption, on one line."""
    sentences = []
    if outcome.rest_by:
        sentences.append(f"To run the rest: {outcome.rest_by}.")
    if not_begun:
        sentences.append(f"Not begun: {', '.join(not_begun)}; run those again.")
    if not outcome.batch.request_counts.total:
        sentences.insert(0, "Interrupted before any row was run.")
    return " ".join(sentences) or "Interrupted; every row had been run."
