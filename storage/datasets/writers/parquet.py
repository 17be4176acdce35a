"""Parquet out. Only imported where a Parquet file is really written."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa

from storage.datasets.joining import OrderedResults
from storage.datasets.readers.field_types import FieldType
from storage.datasets.readers.parquet_batches import FEW_ROWS, read_batches, schema_of
from storage.datasets.values.json_text import json_bytes, json_float
from storage.datasets.values.results import Record, Result, ResultColumns, check_names
from storage.datasets.values.sources import Source
from storage.datasets.writers.row_groups import row_groups

_MOST_CHARACTERS = 8 * 1024**2
ARROW_TYPES = {
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
    with row_groups(destination, schema) as groups:
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
    schema = pa.schema([(name, ARROW_TYPES[kind]) for name, kind in all_types.items()])
    texts = [name for name, kind in all_types.items() if kind is FieldType.TEXT]
    rows: list[dict[str, Any]] = []
    characters = 0
    with row_groups(destination, schema) as groups:
        for record in records:
            values = {**record.fields, **dict(zip(columns.all, _texts(record.result), strict=True))}
            rows.append(
                {name: as_field(values.get(name), kind) for name, kind in all_types.items()}
            )
            characters += sum(len(rows[-1][name] or "") for name in texts)
            if len(rows) >= FEW_ROWS or characters >= _MOST_CHARACTERS:
                groups.add(pa.RecordBatch.from_pylist(rows, schema=schema).columns)
                rows, characters = [], 0
        groups.add(pa.RecordBatch.from_pylist(rows, schema=schema).columns)


def _texts(result: Result) -> tuple[str | None, str | None, str | None]:
    """A result's values, in the order of `ResultColumns.all`."""
    return result.text, result.finish_reason, result.error.message if result.error else None


def _result_arrays(results: Sequence[Result]) -> list[pa.Array]:
    return [pa.array(values, pa.string()) for values in zip(*map(_texts, results), strict=True)]


def as_field(value: Any, kind: FieldType) -> Any:
    """A value of a row as a column of its field's type holds it."""
    if value is None or isinstance(value, str):
        return value
    if kind is FieldType.FLOAT64:
        return float(bytes(value) if isinstance(value, msgspec.Raw) else value)
    if kind is FieldType.TEXT:
        text = json_float(value) if isinstance(value, float) else value
        return text if isinstance(text, str) else json_bytes(value).decode()
    return value
