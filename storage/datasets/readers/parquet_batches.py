"""The rows of a Parquet file in its own types, in bounded memory.

A few bytes of Parquet can stand for very many, as a value that repeats is kept once. So the limit
is checked twice: against the file's own footer before anything is read, and against what comes out
while it is read, which is only a few rows at a time.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.datasets.readers.arrow_types import is_list, own_bytes, plain, plain_schema
from storage.datasets.values.sources import Limits, Source
from storage.errors import InputNotUnderstood

FEW_ROWS = 64

_MOST_SECONDS = 2**63 // 10**9  # that a time in nanoseconds can be from 1970


def checked_schema(path: Path, name: str, limits: Limits) -> pa.Schema:
    """The columns of a file and their types.

    Raises:
        InputNotUnderstood: it is damaged, has two columns of a name or one of a type that cannot be
            written again, or holds more than the limit.
    """
    with _faults_named(path, name):
        file = _open(path)
    groups = (file.metadata.row_group(index) for index in range(file.metadata.num_row_groups))
    if sum(group.total_byte_size for group in groups) > limits.max_decoded_bytes:
        raise _too_large(name, limits)
    schema = file.schema_arrow
    if len(set(schema.names)) < len(schema.names):
        raise InputNotUnderstood(f"{name} has two columns of the same name.")
    for field in schema:
        check_writable(name, field)
    return schema


def schema_of(source: Source) -> pa.Schema:
    """The columns of a source and their types; `InputNotUnderstood` where it is damaged."""
    with _faults_named(source.path, source.name):
        return _open(source.path).schema_arrow


def read_batches(source: Source) -> Iterator[pa.RecordBatch]:
    """The rows with all columns, `FEW_ROWS` or fewer at a time, in the types of `plain_schema`.

    Raises:
        InputNotUnderstood: the file is damaged, or holds more than the limit.
    """
    schema = plain_schema(schema_of(source))
    left = source.limits.max_decoded_bytes
    with _faults_named(source.path, source.name):
        for batch in _batches(_open(source.path)):
            rows = pa.RecordBatch.from_arrays(list(map(plain, batch.columns)), schema=schema)
            left -= sum(map(own_bytes, rows.columns))
            if left < 0:
                raise _too_large(source.name, source.limits)
            yield rows


def _open(path: Path) -> pq.ParquetFile:
    """Open a file; old times of 96 bits are read in nanoseconds where those can hold them all."""
    file = _opened(path, "ns")
    found = path.stat()
    if not _old_times(file) or _fit_nanoseconds(path, found.st_mtime_ns, found.st_size):
        return file
    return _opened(path, "us")


def _opened(path: Path, old_times_in: str) -> pq.ParquetFile:
    # As bytes: a file's name need not be UTF-8, which Arrow takes a text for.
    file = pa.OSFile(os.fsencode(path))
    return pq.ParquetFile(file, coerce_int96_timestamp_unit=old_times_in)


def _old_times(file: pq.ParquetFile) -> list[str]:
    leaves = (file.schema.column(index) for index in range(len(file.schema)))
    return [leaf.path for leaf in leaves if leaf.physical_type == "INT96"]


@lru_cache(maxsize=8)
def _fit_nanoseconds(path: Path, modified: int, size: int) -> bool:
    """Whether nanoseconds hold all old times of a file; Arrow itself lets them wrap around."""
    file = _opened(path, "s")
    for batch in _batches(file, _old_times(file)):
        for times in _in_seconds(batch.columns):
            ends = pc.min_max(times.view(pa.int64())).as_py()
            if not all(end is None or abs(end) < _MOST_SECONDS for end in ends.values()):
                return False
    return True


def _in_seconds(columns: Iterable[pa.Array]) -> Iterator[pa.Array]:
    """The old times of columns, in whatever they stand."""
    for column in columns:
        if column.type == pa.timestamp("s"):
            yield column
        elif pa.types.is_struct(column.type):
            yield from _in_seconds(column.flatten())
        elif pa.types.is_map(column.type):
            yield from _in_seconds([column.keys, column.items])
        elif is_list(column.type):
            yield from _in_seconds([column.flatten()])


def _batches(file: pq.ParquetFile, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    # Group by group: Arrow cannot read categories inside of lists from two of them at once.
    for group in range(file.num_row_groups):
        yield from file.iter_batches(batch_size=FEW_ROWS, row_groups=[group], columns=columns)


def check_writable(name: str, field: pa.Field) -> None:
    """Check that Arrow can write a column of the file ``name``.

    Raises:
        InputNotUnderstood: it cannot, for the column's type.
    """
    try:
        pq.ParquetWriter(pa.BufferOutputStream(), plain_schema(pa.schema([field]))).close()
    except pa.ArrowException as error:
        raise InputNotUnderstood(
            f"The column {field.name!r} of {name} is of type {field.type}, which cannot be "
            "written again; leave it out, or write it as another type."
        ) from error


@contextmanager
def _faults_named(path: Path, name: str) -> Iterator[None]:
    try:
        yield
    except pa.ArrowException as error:
        raise InputNotUnderstood(_fault(path, name, error)) from error
    except OSError as error:
        # Arrow reports damage so, too, but without a number.
        reason = f"{name} cannot be read: {error.strerror}." if error.errno else None
        raise InputNotUnderstood(reason or _fault(path, name, error)) from error


def _fault(path: Path, name: str, error: Exception) -> str:
    """What is wrong with a file that Arrow cannot read, with the column where it is one's fault."""
    unknown = isinstance(error, pa.ArrowNotImplementedError)
    where = _column_at_fault(path)
    if where is None:
        return (
            f"{name} cannot be read: {error}" if unknown else f"{name} is a damaged Parquet file."
        )
    what = f"its column {where.name!r}, of type {where.type}, cannot be read"
    return f"{name}: {what}: {error}" if unknown else f"{name} is a damaged Parquet file: {what}."


def _column_at_fault(path: Path) -> pa.Field | None:
    try:
        file = _open(path)
        leaves = [file.schema.column(index).path for index in range(len(file.schema))]
    except (pa.ArrowException, OSError):
        return None
    for field in file.schema_arrow:
        own = [leaf for leaf in leaves if leaf == field.name or leaf.startswith(f"{field.name}.")]
        try:
            for _ in _batches(file, own):
                pass
        except (pa.ArrowException, OSError):
            return field
    return None


def _too_large(name: str, limits: Limits) -> InputNotUnderstood:
    return InputNotUnderstood(
        f"{name} holds more than {limits.max_decoded_bytes:,} bytes once it is unpacked "
        "(TIDEMILL_MAX_DECODED_BYTES sets the limit)."
    )
