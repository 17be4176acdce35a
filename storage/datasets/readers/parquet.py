"""Parquet in. Only imported where a Parquet file is really read or written.

A few bytes of Parquet can stand for very many, as a value that repeats is kept once. So the limit
is checked twice: against the file's own footer before anything is read, and against what comes out
while it is read. Repeated texts are read as indices into those that differ, and are written out in
full only for a few rows at a time.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.datasets.values.rows import Prompt, Row
from storage.datasets.values.sources import EXPECTED, Limits, Source
from storage.errors import InputNotUnderstood

ROWS_AT_ONCE = 8_192
UNFOLDED_ROWS = 64


def prompt_column(path: Path, column: str | None, limits: Limits) -> str:
    """The column that holds the prompts, checked.

    Raises:
        InputNotUnderstood: there is none, or it is of another type than strings or lists of
        messages; or
            the file holds more than the limit.
    """
    file = _open(path)
    _check_footer(path, file.metadata, limits)
    schema = file.schema_arrow
    if len(set(schema.names)) < len(schema.names):
        raise InputNotUnderstood(f"{path.name} has two columns of the same name.")
    name = column or next((n for n in ("messages", "prompt") if n in schema.names), None)
    if name is None or name not in schema.names:
        wanted = f"no column {column!r}" if column else "neither a column prompt nor messages"
        raise InputNotUnderstood(
            f"{path.name} has {wanted}; it has {', '.join(schema.names) or 'none at all'}. "
            "Name the prompts' column with --column."
        )
    if not (_is_text(schema.field(name).type) or _is_messages(schema.field(name).type)):
        raise InputNotUnderstood(
            f"The column {name!r} of {path.name} is of type {schema.field(name).type}; prompts are "
            f"strings, messages are lists of {{role, content}}. {EXPECTED}"
        )
    return name


def read_parquet_rows(source: Source) -> Iterator[Row]:
    """The rows with their prompt column only; ``fields`` has the names of all columns, no values.

    Raises:
        InputNotUnderstood: the file is damaged, or holds more than the limit.
    """
    column = source.column or prompt_column(source.path, None, source.limits)
    names = dict.fromkeys(schema_of(source).names)
    number = 0
    for batch in read_batches(source, [column]):
        for value in batch.column(0).to_pylist():
            number += 1
            yield Row(number, _prompt(value), names)


def read_parquet_fields(source: Source) -> Iterator[dict[str, Any]]:
    """Every row's fields by name; `InputNotUnderstood` as `read_parquet_rows`."""
    for batch in read_batches(source):
        yield from batch.to_pylist()


def schema_of(source: Source) -> pa.Schema:
    """The columns of a source and their types; `InputNotUnderstood` where it is damaged."""
    return _open(source.path).schema_arrow


def read_batches(source: Source, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows, at most `UNFOLDED_ROWS` at a time, in the file's own types.

    Raises:
        InputNotUnderstood: the file is damaged, or holds more than the limit.
    """
    path = source.path
    schema = schema_of(source)
    if columns is not None:
        schema = pa.schema([schema.field(name) for name in columns])
    folded = _open(path, folded=True).iter_batches(batch_size=ROWS_AT_ONCE, columns=columns)
    left = source.limits.max_decoded_bytes
    with _damage_named(path):
        for batch in folded:
            for start in range(0, batch.num_rows, UNFOLDED_ROWS):
                rows = batch.slice(start, UNFOLDED_ROWS).cast(schema)
                left -= rows.nbytes
                if left < 0:
                    raise _too_large(path, source.limits)
                yield rows


def _open(path: Path, *, folded: bool = False) -> pq.ParquetFile:
    """Open a file; ``folded`` reads texts as indices into those that differ."""
    with _damage_named(path):
        file = pq.ParquetFile(path)
        if not folded:
            return file
        leaves = (file.schema.column(index) for index in range(len(file.schema)))
        texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
        return pq.ParquetFile(path, read_dictionary=texts)


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise InputNotUnderstood(f"{path.name} is a damaged Parquet file.") from error


def _check_footer(path: Path, footer: pq.FileMetaData, limits: Limits) -> None:
    groups = range(footer.num_row_groups)
    if sum(footer.row_group(i).total_byte_size for i in groups) > limits.max_decoded_bytes:
        raise _too_large(path, limits)


def _too_large(path: Path, limits: Limits) -> InputNotUnderstood:
    return InputNotUnderstood(
        f"{path.name} holds more than {limits.max_decoded_bytes:,} bytes once it is unpacked "
        "(TIDEMILL_MAX_DECODED_BYTES sets the limit)."
    )


def _prompt(value: Any) -> Prompt | None:
    if isinstance(value, list):
        # A list of structs gives every message every key; the ones it lacks are null.
        return [{k: v for k, v in message.items() if v is not None} for message in value if message]
    return value if isinstance(value, str) else None


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return str(kind) in ("string", "large_string", "string_view")


def _is_messages(kind: pa.DataType) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return bool(is_list and pa.types.is_struct(kind.value_type))
