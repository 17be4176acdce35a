"""Parquet out. Only imported where a Parquet file is really written."""

from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from storage.datasets.joining import OrderedResults
from storage.datasets.readers.arrow_types import plain_schema
from storage.datasets.readers.field_types import FieldType
from storage.datasets.readers.parquet_batches import UNFOLDED_ROWS, read_batches, schema_of
from storage.datasets.values.results import Record, Result, ResultColumns, check_names
from storage.datasets.values.sources import Source

GROUP_ROWS = 65_536
GROUP_BYTES = 64 * 1024**2

_ARROW_TYPES = {
    FieldType.BOOL: pa.bool_(),
    FieldType.INT64: pa.int64(),
    FieldType.UINT64: pa.uint64(),
    FieldType.FLOAT64: pa.float64(),
    FieldType.TEXT: pa.string(),
}


def write_joined(
    source: Source, results: OrderedResults, columns: ResultColumns, destination: BinaryIO
) -> None:
    """Write a Parquet source again, in its own types, with the results beside its columns.

    Raises:
        InputNotUnderstood: the source cannot be read, or has a column of a name that is needed.
        InputMismatch: the results are not those of the source.
        ResultNotUnderstood: a line of the result files is not a result.
    """
    schema = schema_of(source)
    check_names(source.name, 1, schema.names, columns)
    for name in columns.all:
        schema = schema.append(pa.field(name, pa.string()))
    rows = 0
    with _row_groups(destination, schema) as groups:
        for batch in read_batches(source):
            taken = [results.of(rows + at) for at in range(1, batch.num_rows + 1)]
            rows += batch.num_rows
            groups.add(batch.columns + _result_arrays(taken))
        results.end(rows)


def write_records(
    records: Iterable[Record],
    types: Mapping[str, FieldType],
    columns: ResultColumns,
    destination: BinaryIO,
) -> None:
    """Write records as Parquet.

    Args:
        types: the fields of all records and their types, as `readers.field_types` tells them; a
            record without one of them gets null.
    """
    all_types = {**types, **dict.fromkeys(columns.all, FieldType.TEXT)}
    schema = pa.schema([(name, _ARROW_TYPES[kind]) for name, kind in all_types.items()])
    rows: list[dict[str, Any]] = []
    with _row_groups(destination, schema) as groups:
        for record in records:
            values = {**record.fields, **dict(zip(columns.all, _texts(record.result), strict=True))}
            rows.append({name: _as(values.get(name), kind) for name, kind in all_types.items()})
            if len(rows) >= UNFOLDED_ROWS:
                groups.add(pa.RecordBatch.from_pylist(rows, schema=schema).columns)
                rows.clear()
        groups.add(pa.RecordBatch.from_pylist(rows, schema=schema).columns)


class _RowGroups:
    """Gathers small batches to row groups of `GROUP_ROWS`, or of `GROUP_BYTES` if that is less."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer
        self._batches: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0

    def add(self, columns: Sequence[pa.Array]) -> None:
        """Take the next rows."""
        batch = pa.RecordBatch.from_arrays(columns, schema=self._writer.schema)
        self._batches.append(batch)
        self._rows += batch.num_rows
        self._bytes += batch.nbytes
        if self._rows >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self.write()

    def write(self) -> None:
        """Write what is gathered, if anything is."""
        if self._rows:
            self._writer.write_table(pa.Table.from_batches(self._batches), GROUP_ROWS)
        self._batches.clear()
        self._rows = self._bytes = 0


@contextmanager
def _row_groups(destination: BinaryIO, schema: pa.Schema) -> Iterator[_RowGroups]:
    """Row groups of columns that are read again with the types of ``schema``."""
    with pq.ParquetWriter(destination, plain_schema(schema), store_schema=False) as writer:
        groups = _RowGroups(writer)
        yield groups
        groups.write()
        # As Arrow itself keeps a schema, which here is not that of the columns it was given.
        arrow_schema = b64encode(schema.serialize().to_pybytes())
        writer.add_key_value_metadata({**(schema.metadata or {}), b"ARROW:schema": arrow_schema})


def _texts(result: Result) -> tuple[str | None, str | None, str | None]:
    """A result's values, in the order of `ResultColumns.all`."""
    return result.text, result.finish_reason, result.error.message if result.error else None


def _result_arrays(results: Sequence[Result]) -> list[pa.Array]:
    return [pa.array(values, pa.string()) for values in zip(*map(_texts, results), strict=True)]


def _as(value: Any, kind: FieldType) -> Any:
    """A value as its column's type holds it."""
    if value is None or isinstance(value, str):
        return value
    if kind is FieldType.TEXT:
        return msgspec.json.encode(value).decode()
    return float(value) if kind is FieldType.FLOAT64 else value
