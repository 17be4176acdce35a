"""A table without rows: nothing is run, and its output is an empty one."""

from storage.datasets.joining import OrderedResults
from storage.datasets.readers.field_types import field_types
from storage.datasets.readers.rows import has_rows
from storage.datasets.values.sources import Kind, Source, shown
from tidemill.client.shapes import Batch
from tidemill.run.dataset_errors import dataset_errors
from tidemill.run.files import WholeFile
from tidemill.run.formats import Format
from tidemill.run.jobs import Outcome
from tidemill.run.summary import Summary
from tidemill.run.targets import Target


def is_empty(source: Source) -> bool:
    """Whether a plain input has no rows; `InputError` where it cannot be read."""
    with dataset_errors():
        return source.kind is not Kind.REQUESTS and not has_rows(source)


def without_rows(source: Source, target: Target) -> Outcome:
    """Write the output of a table without rows.

    Raises:
        TidemillError: it cannot be written.
    """
    with (
        dataset_errors(),
        WholeFile(target.output, keep_empty=True) as output,
        WholeFile(target.errors),  # removes that of an earlier run
    ):
        if target.format is Format.PARQUET:
            _write_parquet(source, target, output)
    batch = Batch("", "completed", source.endpoint, "", 0)
    summary = Summary(
        batch_id="",
        status="completed",
        rows=0,
        answered=0,
        failed=0,
        seconds=0.0,
        prompt_tokens=0,
        cached_tokens=0,
        output_tokens=0,
        tokens_per_second=None,
        prefix_cache_share=0.0,
        output=shown(str(output.kept)) if output.kept else None,
        errors=None,
        failures={},
        reasons=[],
    )
    return Outcome(batch, summary, interrupted=False)


def _write_parquet(source: Source, target: Target, output: WholeFile) -> None:
    from storage.datasets.writers.parquet import write_joined, write_records

    if source.kind is Kind.PARQUET:
        write_joined(source, OrderedResults((), ()), target.columns, output.stream)
    else:
        write_records((), field_types(source), target.columns, output.stream)
