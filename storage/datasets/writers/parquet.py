"""Parquet out. Only imported where a Parquet file is really written."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from storage.datasets.joining import OrderedResults
from storage.datasets.readers.parquet import ROWS_AT_ONCE, read_batches, schema_of
from storage.datasets.values.results import Record, Result, ResultColumns
from storage.datasets.values.sources import Source

_ARROW_TYPES = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}


def write_joined(
    source: Source, results: OrderedResults, columns: ResultColumns, destination: BinaryIO
) -> None:
    """Write a Parquet source again, in its own types, with the results beside its columns.

    Raises:
        InputNotUnderstood: the source cannot be read.
        ResultNotUnderstood: a line of the result files is not a result.
    """
    schema = schema_of(source)
    for name in columns.all:
        schema = schema.append(pa.field(name, pa.string()))
    first = 1
    with pq.ParquetWriter(destination, schema) as writer:
        for batch in read_batches(source):
            taken = [results.of(row) for row in range(first, first + batch.num_rows)]
            first += batch.num_rows
            arrays = batch.columns + _result_arrays(taken)
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))


def write_records(
    records: Iterable[Record],
    types: Mapping[str, type],
    columns: ResultColumns,
    destination: BinaryIO,
) -> None:
    """Write records as Parquet.

    Args:
        types: the fields of all records and their types, as `readers.rows.field_types` tells them;
            a record without one of them gets null.
    """
    all_types = {**types, **dict.fromkeys(columns.all, str)}
    schema = pa.schema([(name, _ARROW_TYPES[kind]) for name, kind in all_types.items()])
    rows: list[dict[str, Any]] = []
    with pq.ParquetWriter(destination, schema) as writer:
        for record in records:
            values = {**record.fields, **dict(zip(columns.all, _texts(record.result), strict=True))}
            rows.append({name: _as(values.get(name), kind) for name, kind in all_types.items()})
            if len(rows) >= ROWS_AT_ONCE:
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                rows.clear()
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def _texts(result: Result) -> tuple[str | None, str | None, str | None]:
    """A result's values, in the order of `ResultColumns.all`."""
    return result.text, result.finish_reason, result.error.message if result.error else None


def _result_arrays(results: Sequence[Result]) -> list[pa.Array]:
    return [pa.array(values, pa.string()) for values in zip(*map(_texts, results), strict=True)]


def _as(value: Any, kind: type) -> Any:
    """A value as its column's type holds it: a float, or JSON text where types differ."""
    if value is None or type(value) is kind:
        return value
    return float(value) if kind is float else msgspec.json.encode(value).decode()
