"""Parquet in and out. Only imported where a Parquet file is really read or written."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from tidemill.answers import Answer
from tidemill.errors import InputError
from tidemill.inputs import EXPECTED, Prompt, Row, Source
from tidemill.join import Answers
from tidemill.requests import AnswerColumns

ROWS_AT_ONCE = 8_192


def prompt_column(path: Path, column: str | None) -> str:
    """The column that holds the prompts, checked.

    Raises:
        InputError: there is none, or it is of another type than strings or lists of messages.
    """
    schema = _open(path).schema_arrow
    if len(set(schema.names)) < len(schema.names):
        raise InputError(f"{path.name} has two columns of the same name.")
    name = column or next((n for n in ("messages", "prompt") if n in schema.names), None)
    if name is None or name not in schema.names:
        wanted = f"no column {column!r}" if column else "neither a column prompt nor messages"
        raise InputError(
            f"{path.name} has {wanted}; it has {', '.join(schema.names) or 'none at all'}. "
            "Name the prompts' column with --column."
        )
    if not (_is_text(schema.field(name).type) or _is_messages(schema.field(name).type)):
        raise InputError(
            f"The column {name!r} of {path.name} is of type {schema.field(name).type}; prompts are "
            f"strings, messages are lists of {{role, content}}. {EXPECTED}"
        )
    return name


def read_parquet_rows(source: Source) -> Iterator[Row]:
    """The rows with their prompt column only; ``fields`` names every column, for the check."""
    file = _open(source.path)
    column = source.column or prompt_column(source.path, None)
    names = dict.fromkeys(file.schema_arrow.names)
    number = 0
    for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=[column]):
        for value in batch.column(0).to_pylist():
            number += 1
            yield Row(number, _prompt(value), names)


def read_records(source: Source) -> Iterator[dict[str, Any]]:
    """Every row as a dictionary."""
    for batch in _open(source.path).iter_batches(batch_size=ROWS_AT_ONCE):
        yield from batch.to_pylist()


class JoinedParquet:
    """Writes a Parquet input again, with the answers beside its own columns."""

    def __init__(self, source: Source, columns: AnswerColumns) -> None:
        self._file = _open(source.path)
        self._columns = columns
        self._schema = self._file.schema_arrow
        for name in columns.all:
            self._schema = self._schema.append(pa.field(name, pa.string()))

    def write(self, answers: Answers, destination: BinaryIO) -> None:
        """Write all rows."""
        first = 1
        with pq.ParquetWriter(destination, self._schema) as writer:
            for batch in self._file.iter_batches(batch_size=ROWS_AT_ONCE):
                taken = [answers.of(row) for row in range(first, first + batch.num_rows)]
                first += batch.num_rows
                columns = batch.columns + _answer_arrays(taken)
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._schema))


class RecordParquet:
    """Writes dictionaries as Parquet, by a schema that is known beforehand."""

    def __init__(self, destination: BinaryIO, types: dict[str, type]) -> None:
        self._schema = pa.schema([(name, _ARROW_TYPES[kind]) for name, kind in types.items()])
        self._types = types
        self._stack = ExitStack()
        self._writer = self._stack.enter_context(pq.ParquetWriter(destination, self._schema))
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._flush()
        self._stack.close()

    def write(self, record: Mapping[str, Any]) -> None:
        """Add one row; absent fields are null."""
        self._rows.append({name: _as(record.get(name), kind) for name, kind in self._types.items()})
        if len(self._rows) >= ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows.clear()


_ARROW_TYPES = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path.name} is a damaged Parquet file.") from error


def _answer_arrays(answers: Sequence[Answer]) -> list[pa.Array]:
    values = (
        [answer.text for answer in answers],
        [answer.finish_reason for answer in answers],
        [answer.error.message if answer.error else None for answer in answers],
    )
    return [pa.array(column, pa.string()) for column in values]


def _as(value: Any, kind: type) -> Any:
    if value is None or type(value) is kind:
        return value
    return float(value) if kind is float else msgspec.json.encode(value).decode()


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
