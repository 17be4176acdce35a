"""The columns of a dataset that its results are to have again, in their own types.

Those of Parquet files are Arrow's own; where files differ, as in the size of an integer, a type
that holds both. Those of JSON lines are told by all rows, as `readers.field_types` has them. Those
of CSV, of text and of partitions are text.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from storage.datasets.dataset_lines import Dataset, DatasetFile
from storage.datasets.readers.arrow_types import plain_type
from storage.datasets.readers.delimited import read_header
from storage.datasets.readers.field_types import FieldType, field_types
from storage.datasets.readers.parquet import column_types
from storage.datasets.readers.parquet_batches import (
    FEW_ROWS,
    check_writable,
    read_batches,
    row_count,
)
from storage.datasets.readers.rows import read_records
from storage.datasets.readers.unpacked import open_unpacked
from storage.datasets.values.output_options import CUSTOM_ID, RESULT_COLUMNS
from storage.datasets.values.rows import listed
from storage.datasets.values.sources import Kind, Source
from storage.datasets.writers.parquet import ARROW_TYPES, as_field
from storage.errors import InputModified, OutputError

PARAM = "tidemill.passthrough"
MOST_COLUMNS = 1_000
_MOST_BYTES = 8 * 1024**2

Wanted = tuple[str, ...] | Literal["all"]
Columns = list[pa.Array]


@dataclass(frozen=True, slots=True)
class Passthrough:
    """The columns, and their values row by row.

    Attributes:
        schema: their names and types; where Parquet is written, `arrow_types.plain` is done to the
            values.
    """

    dataset: Dataset
    schema: pa.Schema

    @classmethod
    def of(cls, dataset: Dataset, wanted: Wanted) -> "Passthrough":
        """Look for the columns in all files.

        Raises:
            OutputError: a column is nowhere, has a name that the results need, or is of types that
                do not go together; or there are too many.
            DatasetError: a file cannot be read.
        """
        found: dict[str, pa.DataType] = {}
        for file, source in dataset.sources():
            if source.kind is Kind.REQUESTS:
                raise OutputError(
                    "Lines of whole requests have no columns to pass through; leave it out.",
                    param=PARAM,
                )
            for name, kind in _types(file, source, wanted).items():
                found[name] = _joined(name, found.get(name), kind, source)
            if len(found) > MOST_COLUMNS:
                raise OutputError(
                    f"There are more than {MOST_COLUMNS:,} columns; list those that are wanted.",
                    param=PARAM,
                )
        names = tuple(found) if wanted == "all" else tuple(dict.fromkeys(wanted))
        _check_names(names, found)
        return cls(dataset, pa.schema([(name, found[name]) for name in names]))

    def rows(self) -> "PassedRows":
        """The values of all rows, from the first one on."""
        return PassedRows(self)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The values, a few rows at a time, in plain types (`arrow_types.plain_type`)."""
        for file, source in self.dataset.sources():
            spelled = file.partitions
            names = [name for name in self.schema.names if name not in spelled]
            parquet = source.kind is Kind.PARQUET
            for count, columns in (_of_parquet if parquet else self._of_rows)(source, names):
                arrays = [
                    self._array(field, count, spelled, columns.get(field.name))
                    for field in self.schema
                ]
                yield pa.RecordBatch.from_arrays(arrays, names=self.schema.names)

    def _array(
        self,
        field: pa.Field,
        count: int,
        spelled: Mapping[str, str | None],
        column: pa.Array | None,
    ) -> pa.Array:
        kind = plain_type(field.type)
        if field.name in spelled:
            column = pa.array([spelled[field.name]] * count, pa.string())
        if column is None:
            return pa.nulls(count, kind)
        return column if column.type.equals(kind) else _cast(column, kind, field.name)

    def _of_rows(
        self, source: Source, names: Sequence[str]
    ) -> Iterator[tuple[int, dict[str, pa.Array]]]:
        kinds = {name: _FIELD_TYPES[self.schema.field(name).type] for name in names}
        rows: list[dict[str, Any]] = []
        size = 0
        for row in read_records(source, frozenset(names)):
            values = {name: as_field(row.fields.get(name), kinds[name]) for name in names}
            rows.append(values)
            size += sum(len(value) for value in values.values() if isinstance(value, str))
            if len(rows) >= FEW_ROWS or size >= _MOST_BYTES:
                yield len(rows), _arrays(rows, kinds)
                rows, size = [], 0
        if rows:
            yield len(rows), _arrays(rows, kinds)


class PassedRows:
    """The values of rows, taken in order."""

    def __init__(self, passthrough: Passthrough) -> None:
        self._batches = passthrough.batches()
        self._left: pa.RecordBatch | None = None

    def take(self, count: int) -> Iterator[pa.RecordBatch]:
        """The next rows, a few at a time.

        Raises:
            InputModified: there are fewer.
            OutputError: a value has no place in its column's type.
            DatasetError: a file cannot be read.
        """
        while count > 0:
            batch = next(self._batches, None) if self._left is None else self._left
            if batch is None:
                raise InputModified("The input has fewer rows than before; create the batch again.")
            taken = batch.slice(0, count)
            self._left = batch.slice(count) if batch.num_rows > count else None
            count -= taken.num_rows
            yield taken


def _types(file: DatasetFile, source: Source, wanted: Wanted) -> dict[str, pa.DataType]:
    found: dict[str, pa.DataType] = {}
    if source.kind is Kind.PARQUET:
        found = column_types(source)
        for name in found if wanted == "all" else found.keys() & set(wanted):
            check_writable(source.name, pa.field(name, found[name]))
    elif source.kind.delimited:
        with open_unpacked(source.file, source.name, source.limits) as stream:
            found = dict.fromkeys(read_header(stream, source), pa.string())
    elif source.kind is Kind.TEXT:
        found = {"prompt": pa.string()}
    else:
        found = {name: ARROW_TYPES[kind] for name, kind in field_types(source).items()}
    found |= dict.fromkeys(file.partitions, pa.string())
    return {name: kind for name, kind in found.items() if wanted == "all" or name in wanted}


def _joined(name: str, before: pa.DataType | None, kind: pa.DataType, source: Source) -> Any:
    if before is None or before.equals(kind):
        return kind
    if source.kind is not Kind.PARQUET:
        return pa.string()
    try:
        schemas = [pa.schema([(name, each)]) for each in (before, kind)]
        return pa.unify_schemas(schemas, promote_options="permissive").field(name).type
    except pa.ArrowException as error:
        raise OutputError(
            f"The column {name!r} is of type {before} in one file, and of type {kind} in "
            f"{source.name}; write both as one type, or leave it out.",
            param=PARAM,
        ) from error


def _cast(column: pa.Array, kind: pa.DataType, name: str) -> pa.Array:
    try:
        return column.cast(kind)
    except pa.ArrowException as error:
        raise OutputError(
            f"The column {name!r} is of type {column.type} in one file, and a value of it has no "
            f"place in the type {kind} that holds those of all files; write it as one type "
            "everywhere, or leave it out.",
            param=PARAM,
        ) from error


def _check_names(names: Sequence[str], found: Mapping[str, pa.DataType]) -> None:
    missing = next((name for name in names if name not in found), None)
    if missing is not None:
        raise OutputError(
            f"There is no column {missing!r} to pass through. The columns are {listed(found)}.",
            param=PARAM,
        )
    taken = next((name for name in names if name in (CUSTOM_ID, *RESULT_COLUMNS)), None)
    if taken is not None:
        raise OutputError(
            f"The column {taken!r} cannot be passed through: the results have one of that name. "
            "List the others.",
            param=PARAM,
        )


def _of_parquet(source: Source, names: Sequence[str]) -> Iterator[tuple[int, dict[str, pa.Array]]]:
    there = [name for name in column_types(source) if name in names]
    if not there:
        left = row_count(source)
        while left > 0:
            yield min(left, FEW_ROWS), {}
            left -= FEW_ROWS
        return
    for batch in read_batches(source, there):
        yield batch.num_rows, dict(zip(batch.schema.names, batch.columns, strict=True))


def _arrays(rows: list[dict[str, Any]], kinds: Mapping[str, FieldType]) -> dict[str, pa.Array]:
    return {
        name: pa.array([row[name] for row in rows], ARROW_TYPES[kind])
        for name, kind in kinds.items()
    }


_FIELD_TYPES = {kind: field for field, kind in ARROW_TYPES.items()}
