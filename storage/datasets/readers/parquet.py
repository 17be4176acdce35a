"""Parquet in. Only imported where a Parquet file is really read or written."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from storage.datasets.readers.arrow_types import is_list, is_text, stored_type
from storage.datasets.readers.arrow_values import json_values
from storage.datasets.readers.parquet_batches import (
    checked_schema,
    read_batches,
    readable_schema,
    row_count,
    schema_of,
)
from storage.datasets.values.files import DataFile
from storage.datasets.values.rows import NO_MESSAGES, PROMPT_FIELDS, PROMPTS, Row, text_prompt
from storage.datasets.values.sources import EXPECTED, Limits, Source
from storage.errors import InputNotUnderstood

_NOT_UTF8 = object()


def prompt_column(
    file: DataFile, column: str | None, limits: Limits, name: str, *, written_again: bool = True
) -> str:
    """The column that holds the prompts, checked.

    Args:
        name: what to call the file in messages.
        written_again: whether all columns are to be written again.

    Raises:
        InputNotUnderstood: there is none, or it is of another type than strings or lists of
            messages; or the file is one that `checked_schema` refuses.
    """
    schema = (checked_schema if written_again else readable_schema)(file, name, limits)
    found = column or next((n for n in PROMPT_FIELDS if n in schema.names), None)
    if found is None or found not in schema.names:
        wanted = f"no column {column!r}" if column else "neither a column prompt nor messages"
        raise InputNotUnderstood(
            f"{name} has {wanted}; it has {', '.join(schema.names) or 'none at all'}. "
            "Name the prompts' column with --column."
        )
    kind = schema.field(found).type
    if not (is_text(stored_type(kind)) or _is_messages(kind)):
        raise InputNotUnderstood(
            f"The column {found!r} of {name} is of type {kind}; prompts are "
            f"strings, messages are lists of {{role, content}}. {EXPECTED}"
        )
    return found


def column_types(source: Source) -> dict[str, pa.DataType]:
    """The columns and their types; `InputNotUnderstood` where the file cannot be read."""
    schema = readable_schema(source.file, source.name, source.limits)
    return dict(zip(schema.names, schema.types, strict=True))


def read_parquet_rows(source: Source, beside: Collection[str] | None = None) -> Iterator[Row]:
    """The rows with their prompts; ``fields`` has the names of all columns, no values.

    All columns are read, so that what cannot be read is known before any work.

    Args:
        beside: columns that ``fields`` is to have with their values; no others are read then.

    Raises:
        InputNotUnderstood: the file is damaged, or holds more than the limit.
    """
    column = source.column or prompt_column(source.file, None, source.limits, source.name)
    names = dict.fromkeys(schema_of(source).names)
    number = 0
    for batch in read_batches(source, None if beside is None else {column, *beside}):
        prompts = _prompts(batch.column(column))
        for value, fields in zip(prompts, _beside(batch, names, beside or ()), strict=True):
            number += 1
            yield _row(number, value, column, fields)


def read_parquet_records(source: Source, columns: Collection[str]) -> Iterator[Row]:
    """The rows with the values of these columns, as far as there are such, and no prompts.

    Raises:
        InputNotUnderstood: as `read_parquet_rows`.
    """
    names = [name for name in schema_of(source).names if name in columns]
    if not names:
        yield from (Row(number, None, {}) for number in range(1, row_count(source) + 1))
        return
    number = 0
    # What is written again is read whole, so that what cannot be read is known before any work.
    for batch in read_batches(source, names if source.columns is None else None):
        for fields in _records(batch, names):
            number += 1
            if isinstance(fields, str):
                yield Row(number, None, {}, problem=fields)
            else:
                yield Row(number, None, fields)


def read_parquet_fields(source: Source) -> Iterator[dict[str, Any]]:
    """Every row's fields by name, as JSON can hold them; `InputNotUnderstood` as
    `read_parquet_rows`."""
    names = schema_of(source).names
    for batch in read_batches(source):
        columns = (json_values(column) for column in batch.columns)
        for values in zip(*columns, strict=True):
            yield dict(zip(names, values, strict=True))


def _records(batch: pa.RecordBatch, names: Sequence[str]) -> Iterator[dict[str, Any] | str]:
    """Each row's fields, or why it has none."""
    columns = [_each_alone(batch.column(name), _strict) for name in names]
    for values in zip(*columns, strict=True):
        if _NOT_UTF8 in values:
            yield _not_utf8(names[values.index(_NOT_UTF8)])
        else:
            yield dict(zip(names, values, strict=True))


def _beside(
    batch: pa.RecordBatch, names: Mapping[str, None], beside: Collection[str]
) -> Iterator[Mapping[str, Any]]:
    """Each row's fields: all names, and values where they are wanted."""
    wanted = [name for name in batch.schema.names if name in beside]
    columns = [json_values(batch.column(name)) for name in wanted]
    if not columns:
        yield from [names] * batch.num_rows
        return
    for values in zip(*columns, strict=True):
        yield {**names, **dict(zip(wanted, values, strict=True))}


def _row(number: int, value: Any, column: str, fields: Mapping[str, Any]) -> Row:
    if value is _NOT_UTF8:
        return Row(number, None, fields, problem=_not_utf8(column))
    if value == []:
        problem = f"The column {column!r} is an empty list; {PROMPTS}."
        return Row(number, None, fields, problem=problem)
    if not isinstance(value, str):
        return Row(number, value, fields)
    prompt = text_prompt(column, value)
    return Row(number, prompt, fields, problem=NO_MESSAGES if prompt is None else None)


def _not_utf8(column: str) -> str:
    return f"The text in {column!r} is not UTF-8."


def _prompts(column: pa.Array) -> list[Any]:
    """Texts and messages; `_NOT_UTF8` for one that is not."""
    return _each_alone(column, lambda part: [_prompt(value) for value in _strict(part)])


def _strict(column: pa.Array) -> list[Any]:
    return json_values(column, "strict")


def _each_alone(column: pa.Array, values_of: Callable[[pa.Array], list[Any]]) -> list[Any]:
    """The values of a column; `_NOT_UTF8` for each one that is not."""
    try:
        return values_of(column)
    except UnicodeDecodeError:
        if len(column) == 1:
            return [_NOT_UTF8]
        each = (column.slice(at, 1) for at in range(len(column)))
        return [value for one in each for value in _each_alone(one, values_of)]


def _prompt(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nulls(message) for message in value if message]
    return value


def _without_nulls(value: Any) -> Any:
    """A list of structs gives every message every key; the ones that it lacks are null."""
    if isinstance(value, dict):
        return {name: _without_nulls(held) for name, held in value.items() if held is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _is_messages(kind: pa.DataType) -> bool:
    if not is_list(kind):
        return False
    return bool(pa.types.is_struct(kind.value_type) or pa.types.is_map(kind.value_type))
