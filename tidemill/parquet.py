"""Parquet in and out. Only imported where a Parquet file is really read or written.

A few bytes of Parquet can stand for very many: a value that repeats is kept once. So what a file
holds is held against a limit twice, by its own footer before anything is read, and by what comes
out while it is read; and repeated values stay folded until the moment they are used.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from tidemill.answers import Answer
from tidemill.errors import InputError
from tidemill.inputs import EXPECTED, Limits, Prompt, Row, Source
from tidemill.join import Answers
from tidemill.requests import AnswerColumns

ROWS_AT_ONCE = 8_192
UNFOLDED_ROWS = 64


def prompt_column(path: Path, column: str | None, limits: Limits) -> str:
    """The column that holds the prompts, checked.

    Raises:
        InputError: there is none, or it is of another type than strings or lists of messages; or
            the file holds more than the limit.
    """
    file = _open(path)
    _check_footer(path, file.metadata, limits)
    schema = file.schema_arrow
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
    """The rows with their prompt column only; ``fields`` names every column, for the check.

    Raises:
        InputError: the file is damaged, or holds more than the limit.
    """
    column = source.column or prompt_column(source.path, None, source.limits)
    names = dict.fromkeys(_open(source.path).schema_arrow.names)
    number = 0
    for batch in _batches(source, [column]):
        for value in batch.column(0).to_pylist():
            number += 1
            yield Row(number, _prompt(value), names)


def read_records(source: Source) -> Iterator[dict[str, Any]]:
    """Every row as a dictionary; `InputError` as `read_parquet_rows`."""
    for batch in _batches(source):
        yield from batch.to_pylist()


def _batches(source: Source, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """A few rows at a time, in the file's own types."""
    path = source.path
    schema = _open(path).schema_arrow
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


class JoinedParquet:
    """Writes a Parquet input again, with the answers beside its own columns."""

    def __init__(self, source: Source, columns: AnswerColumns) -> None:
        self._source = source
        self._columns = columns
        self._schema = _open(source.path).schema_arrow
        for name in columns.all:
            self._schema = self._schema.append(pa.field(name, pa.string()))

    def write(self, answers: Answers, destination: BinaryIO) -> None:
        """Write all rows."""
        first = 1
        with pq.ParquetWriter(destination, self._schema) as writer:
            for batch in _batches(self._source):
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


def _open(path: Path, *, folded: bool = False) -> pq.ParquetFile:
    """``folded`` reads texts as indices into those that differ."""
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
        raise InputError(f"{path.name} is a damaged Parquet file.") from error


def _check_footer(path: Path, footer: pq.FileMetaData, limits: Limits) -> None:
    groups = range(footer.num_row_groups)
    if sum(footer.row_group(i).total_byte_size for i in groups) > limits.max_decoded_bytes:
        raise _too_large(path, limits)


def _too_large(path: Path, limits: Limits) -> InputError:
    return InputError(
        f"{path.name} holds more than {limits.max_decoded_bytes:,} bytes once it is unpacked "
        "(TIDEMILL_MAX_DECODED_BYTES sets the limit)."
    )


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
