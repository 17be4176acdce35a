"""A table without rows: nothing is run, and its output is an empty one."""

from storage.datasets.joining import OrderedResults
from storage.datasets.readers.rows import column_names, has_rows
from storage.datasets.values.sources import Kind, Source
from tidemill.errors import TidemillError
from tidemill.run.dataset_errors import dataset_errors
from tidemill.run.files import WholeFile
from tidemill.run.formats import Format
from tidemill.run.outputs import Written
from tidemill.run.targets import Target


def is_empty(source: Source) -> bool:
    """Whether a plain input has no rows; `InputError` where it cannot be read."""
    with dataset_errors():
        return source.kind is not Kind.REQUESTS and not has_rows(source)


def write_empty(source: Source, target: Target) -> Written:
    """Write the output of a table without rows; the errors file of an earlier run goes away.

    Raises:
        TidemillError: it cannot be written.
    """
    with dataset_errors(), WholeFile(target.output) as output, WholeFile(target.errors):
        if target.format is Format.PARQUET:
            _write_parquet(source, target, output)
    if output.kept is None:
        try:
            target.output.touch()
        except OSError as error:
            raise TidemillError(f"{target.output} cannot be written: {error.strerror}.") from error
    return Written(target.output)


def _write_parquet(source: Source, target: Target, output: WholeFile) -> None:
    from storage.datasets.writers.parquet import write_joined, write_records

    if source.kind is Kind.PARQUET:
        write_joined(source, OrderedResults((), ()), target.columns, output.stream)
    else:
        write_records((), dict.fromkeys(column_names(source), str), target.columns, output.stream)
