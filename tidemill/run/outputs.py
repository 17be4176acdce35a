"""From a finished batch to the user's files: as the service wrote them, or joined to the input.

Formats: ``openai`` copies the batch's own lines; ``plain`` writes JSON lines of the input's fields
with the answer beside them; ``parquet`` the same as columns. A joined output is in the input's
order. Failed rows go to the errors file, and in Parquet stay in place with their error; where no
input is joined, Parquet has them after the answered ones.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path

from storage.datasets.joining import OrderedResults, join_rows, unjoined
from storage.datasets.readers.field_types import FieldType, field_types
from storage.datasets.values.results import Record, ResultColumns
from storage.datasets.values.sources import Kind, Source
from storage.datasets.writers.json_lines import write_json_lines
from tidemill.client.client import Client
from tidemill.client.shapes import Batch
from tidemill.errors import TidemillError
from tidemill.run.dataset_errors import dataset_errors
from tidemill.run.files import WholeFile
from tidemill.run.formats import Format
from tidemill.run.identity import check_input
from tidemill.run.targets import Target


@dataclass(frozen=True, slots=True)
class Written:
    """The files that were written; ``None`` where there was nothing to write."""

    output: Path | None = None
    errors: Path | None = None


@dataclass(frozen=True, slots=True)
class _ResultFiles:
    """A finished batch's result files, each a stream of pieces; ``rows`` of its input, if known."""

    outputs: Iterable[bytes]
    errors: Iterable[bytes]
    rows: int | None

    def in_order(self) -> OrderedResults:
        """Both files' results, to be asked for row by row."""
        return OrderedResults(self.outputs, self.errors, self.rows)

    def joined(self, source: Source, columns: ResultColumns) -> Iterator[Record]:
        """Every row of a plain source with its result."""
        return join_rows(source, self.outputs, self.errors, columns=columns, rows=self.rows)


def write_results(client: Client, batch: Batch, source: Source | None, target: Target) -> Written:
    """Download a finished batch's results and write them as the target says.

    A file that cannot be written whole is not left behind. A file of the same name, from an
    earlier run, is replaced.

    Args:
        source: the input to join the results to; where it is ``None`` or holds whole requests,
            each result stands beside its ``custom_id``.

    Raises:
        TidemillError: a file cannot be written.
        InputError: the input cannot be read again.
        ClientError: the results cannot be read.
    """
    if batch.output_file_id is None and batch.error_file_id is None:
        return Written()
    if source is not None and source.kind is Kind.REQUESTS:
        source = None
    if source is not None and target.format is not Format.OPENAI:
        check_input(client, batch, source)
    try:
        with dataset_errors():
            return _write(client, batch, source, target)
    except (TidemillError, BrokenPipeError):
        raise
    except OSError as error:
        raise TidemillError(f"The results cannot be written: {error.strerror or error}.") from error
    except Exception as error:
        # Whatever a value, a library or a disk does: the results are there, and a command can
        # fetch them, so a traceback must not be the last word.
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise TidemillError(f"The results cannot be written: {reason}.") from error


def _write(client: Client, batch: Batch, source: Source | None, target: Target) -> Written:
    with ExitStack() as stack:
        files = _ResultFiles(
            stack.enter_context(_download(client, batch.output_file_id)),
            stack.enter_context(_download(client, batch.error_file_id)),
            # A retry has the lines that failed before it, and a batch of an old service no count.
            None if batch.retry_of else batch.request_counts.total or None,
        )
        output = stack.enter_context(WholeFile(target.output))
        errors = stack.enter_context(WholeFile(target.errors))
        if target.format is Format.OPENAI:
            output.write_all(files.outputs)
            errors.write_all(files.errors)
        elif target.format is Format.PLAIN:
            _write_plain(files, source, target.columns, output, errors)
        else:
            _write_parquet(files, source, target.columns, output)
            if target.errors is not None:
                with _download(client, batch.error_file_id) as pieces:
                    errors.write_all(pieces)
    return Written(output.kept, errors.kept)


def _write_plain(
    files: _ResultFiles,
    source: Source | None,
    columns: ResultColumns,
    output: WholeFile,
    errors: WholeFile,
) -> None:
    if source is None:
        errors.write_all(files.errors)
        records = unjoined(files.outputs)
    else:
        records = files.joined(source, columns)
    write_json_lines(records, columns, output.stream, errors.stream)


def _write_parquet(
    files: _ResultFiles, source: Source | None, columns: ResultColumns, output: WholeFile
) -> None:
    from storage.datasets.writers.parquet import write_joined, write_records

    if source is None:
        records = unjoined(files.outputs, files.errors)
        write_records(records, {"custom_id": FieldType.TEXT}, columns, output.stream)
    elif source.kind is Kind.PARQUET:
        write_joined(source, files.in_order(), columns, output.stream)
    else:
        records = files.joined(source, columns)
        write_records(records, field_types(source), columns, output.stream)


def _download(client: Client, file_id: str | None) -> AbstractContextManager[Iterable[bytes]]:
    return client.download(file_id) if file_id else nullcontext(())
