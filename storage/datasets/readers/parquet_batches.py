"""The rows of a Parquet file in its own types, in bounded memory.

A few bytes of Parquet can stand for very many, as a value that repeats is kept once. So the limit
is checked twice: against the file's own footer before anything is read, and against what comes out
while it is read, which is only a few rows at a time. Of each column only a buffer is held, however
large a row group is.
"""

from collections.abc import Collection, Hashable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.datasets.readers.arrow_types import is_list, own_bytes, plain, plain_schema
from storage.datasets.values.files import DataFile
from storage.datasets.values.sources import ENCRYPTED, Limits, Source
from storage.errors import InputNotUnderstood

FEW_ROWS = 64

_MOST_SECONDS = 2**63 // 10**9  # that a time in nanoseconds can be from 1970
_BUFFERS_BYTES = 64 * 1024**2  # of all columns together
_LEAST_BUFFER_BYTES = 128 * 1024


def checked_schema(file: DataFile, name: str, limits: Limits) -> pa.Schema:
    """The columns of a file and their types.

    Raises:
        InputNotUnderstood: it is damaged, has two columns of a name or one of a type that cannot be
            written again, or holds more than the limit.
    """
    schema = readable_schema(file, name, limits)
    for field in schema:
        check_writable(name, field)
    return schema


def readable_schema(file: DataFile, name: str, limits: Limits) -> pa.Schema:
    """As `checked_schema`, but for a file whose columns are not written again."""
    with _faults_named(file, name, limits):
        opened = _opened(file, "ns", ())
    groups = (opened.metadata.row_group(index) for index in range(opened.metadata.num_row_groups))
    if sum(group.total_byte_size for group in groups) > limits.max_decoded_bytes:
        raise _too_large(name, limits)
    schema = opened.schema_arrow
    if len(set(schema.names)) < len(schema.names):
        raise InputNotUnderstood(f"{name} has two columns of the same name.")
    return schema


def schema_of(source: Source) -> pa.Schema:
    """The columns of a source and their types; `InputNotUnderstood` where it is damaged."""
    with _faults_named(source.file, source.name, source.limits):
        return _open(source.file, source.limits).schema_arrow


def row_count(source: Source) -> int:
    """How many rows a source has; `InputNotUnderstood` where it is damaged."""
    with _faults_named(source.file, source.name, source.limits):
        return int(_opened(source.file, "ns", ()).metadata.num_rows)


def read_batches(
    source: Source, columns: Collection[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """The rows, `FEW_ROWS` or fewer at a time, in the types of `plain_schema`.

    Args:
        columns: names of the columns to read, which come in the file's order; ``None`` is all.

    Raises:
        InputNotUnderstood: the file is damaged, or holds more than the limit.
    """
    left = source.limits.max_decoded_bytes
    with _faults_named(source.file, source.name, source.limits):
        opened = _open(source.file, source.limits, columns)
        wanted = [f for f in opened.schema_arrow if columns is None or f.name in columns]
        schema = plain_schema(pa.schema(wanted))
        names = None if columns is None else schema.names
        for batch in _batches(opened, source.limits, names):
            # Where a name has a dot, Arrow reads more columns than were asked for.
            found = batch.columns if columns is None else map(batch.column, schema.names)
            rows = pa.RecordBatch.from_arrays(list(map(plain, found)), schema=schema)
            left -= sum(map(own_bytes, rows.columns))
            if left < 0:
                raise _too_large(source.name, source.limits)
            yield rows


def _open(file: DataFile, limits: Limits, columns: Collection[str] | None = None) -> pq.ParquetFile:
    """Open a file; old times of 96 bits are read in nanoseconds where those can hold them all."""
    opened = _opened(file, "ns", columns)
    old = _old_times(opened, columns)
    if not old or _fit_nanoseconds(file, file.version, tuple(old), limits):
        return opened
    return _opened(file, "us", columns)


def _opened(
    file: DataFile, old_times_in: str, columns: Collection[str] | None = None
) -> pq.ParquetFile:
    most = _BUFFERS_BYTES // max(1, len(columns)) if columns is not None else _LEAST_BUFFER_BYTES
    return pq.ParquetFile(
        file.arrow(),
        coerce_int96_timestamp_unit=old_times_in,
        buffer_size=min(file.buffer_bytes, max(most, _LEAST_BUFFER_BYTES)),
        pre_buffer=False,  # it would hold a whole row group
    )


def _old_times(file: pq.ParquetFile, columns: Collection[str] | None) -> list[str]:
    leaves = (file.schema.column(index) for index in range(len(file.schema)))
    return [
        leaf.path
        for leaf in leaves
        if leaf.physical_type == "INT96"
        and (columns is None or any(_is_in(leaf.path, name) for name in columns))
    ]


def _is_in(leaf: str, column: str) -> bool:
    return leaf == column or leaf.startswith(f"{column}.")


@lru_cache(maxsize=8)
def _fit_nanoseconds(
    file: DataFile, version: Hashable, leaves: tuple[str, ...], limits: Limits
) -> bool:
    """Whether nanoseconds hold these old times of a file; Arrow itself lets them wrap around.

    Of a file that holds more than the limit it says no.
    """
    opened = _opened(file, "s", leaves)
    left = limits.max_decoded_bytes
    for batch in _batches(opened, limits, list(leaves)):
        left -= batch.nbytes
        if left < 0:
            return False
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


def _batches(
    file: pq.ParquetFile, limits: Limits, columns: list[str] | None
) -> Iterator[pa.RecordBatch]:
    # Group by group: Arrow cannot read categories inside of lists from two of them at once.
    # In this thread: handing a few rows to others takes longer than to read them.
    for group in range(file.num_row_groups):
        for batch in file.iter_batches(
            batch_size=FEW_ROWS, row_groups=[group], columns=columns, use_threads=False
        ):
            limits.heartbeat()
            yield batch


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
def _faults_named(file: DataFile, name: str, limits: Limits) -> Iterator[None]:
    try:
        yield
    except pa.ArrowException as error:
        raise InputNotUnderstood(_fault(file, name, limits, error)) from error
    except OSError as error:
        # Arrow reports damage so, too, but without a number.
        reason = f"{name} cannot be read: {error.strerror}." if error.errno else None
        raise InputNotUnderstood(reason or _fault(file, name, limits, error)) from error


def _fault(file: DataFile, name: str, limits: Limits, error: Exception) -> str:
    """What is wrong with a file that Arrow cannot read, with the column where it is one's fault."""
    if "crypt" in str(error):
        return ENCRYPTED.format(name)
    unknown = isinstance(error, pa.ArrowNotImplementedError)
    where = _column_at_fault(file, limits)
    if where is None:
        return (
            f"{name} cannot be read: {error}" if unknown else f"{name} is a damaged Parquet file."
        )
    what = f"its column {where.name!r}, of type {where.type}, cannot be read"
    return f"{name}: {what}: {error}" if unknown else f"{name} is a damaged Parquet file: {what}."


def _column_at_fault(file: DataFile, limits: Limits) -> pa.Field | None:
    """The first column that cannot be read; none is looked for beyond the limit."""
    left = limits.max_decoded_bytes
    try:
        opened = _open(file, limits)
        leaves = [opened.schema.column(index).path for index in range(len(opened.schema))]
    except (pa.ArrowException, OSError):
        return None
    for field in opened.schema_arrow:
        own = [leaf for leaf in leaves if _is_in(leaf, field.name)]
        try:
            for batch in _batches(opened, limits, own):
                left -= batch.nbytes
                if left < 0:
                    return None
        except (pa.ArrowException, OSError):
            return field
    return None


def _too_large(name: str, limits: Limits) -> InputNotUnderstood:
    return InputNotUnderstood(
        f"{name} holds more than {limits.max_decoded_bytes:,} bytes once it is unpacked "
        "(TIDEMILL_MAX_DECODED_BYTES sets the limit)."
    )
