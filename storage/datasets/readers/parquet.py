"""Parquet in. Only imported where a Parquet file is really read or written."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from storage.datasets.readers.arrow_types import is_list, is_text, stored_type
from storage.datasets.readers.arrow_values import json_values
from storage.datasets.readers.parquet_batches import checked_schema, read_batches, schema_of
from storage.datasets.values.rows import NO_MESSAGES, PROMPT_FIELDS, PROMPTS, Row, text_prompt
from storage.datasets.values.sources import EXPECTED, Limits, Source
from storage.errors import InputNotUnderstood

_NOT_UTF8 = object()


def prompt_column(path: Path, column: str | None, limits: Limits, name: str | None = None) -> str:
    """The column that holds the prompts, checked.

    Args:
        name: what to call the file in messages, where the path is only a copy of it.

    Raises:
        InputNotUnderstood: there is none, or it is of another type than strings or lists of
            messages; or the file is one that `checked_schema` refuses.
    """
    shown = name or path.name
    schema = checked_schema(path, shown, limits)
    found = column or next((n for n in PROMPT_FIELDS if n in schema.names), None)
    if found is None or found not in schema.names:
        wanted = f"no column {column!r}" if column else "neither a column prompt nor messages"
        raise InputNotUnderstood(
            f"{shown} has {wanted}; it has {', '.join(schema.names) or 'none at all'}. "
            "Name the prompts' column with --column."
        )
    kind = schema.field(found).type
    if not (is_text(stored_type(kind)) or _is_messages(kind)):
        raise InputNotUnderstood(
            f"The column {found!r} of {shown} is of type {kind}; prompts are "
            f"strings, messages are lists of {{role, content}}. {EXPECTED}"
        )
    return found


def read_parquet_rows(source: Source) -> Iterator[Row]:
    """The rows with their prompt column only; ``fields`` has the names of all columns, no values.

    All columns are read, so that what cannot be read is known before any work.

    Raises:
        InputNotUnderstood: the file is damaged, or holds more than the limit.
    """
    column = source.column or prompt_column(source.path, None, source.limits, source.name)
    schema = schema_of(source)
    names, index = dict.fromkeys(schema.names), schema.get_field_index(column)
    number = 0
    for batch in read_batches(source):
        for value in _prompts(batch.column(index)):
            number += 1
            yield _row(number, value, column, names)


def read_parquet_fields(source: Source) -> Iterator[dict[str, Any]]:
    """Every row's fields by name, as JSON can hold them; `InputNotUnderstood` as
    `read_parquet_rows`."""
    names = schema_of(source).names
    for batch in read_batches(source):
        columns = (json_values(column) for column in batch.columns)
        for values in zip(*columns, strict=True):
            yield dict(zip(names, values, strict=True))


def _row(number: int, value: Any, column: str, names: Mapping[str, None]) -> Row:
    if value is _NOT_UTF8:
        problem = f"The text in {column!r} is not UTF-8."
        return Row(number, None, names, problem=problem)
    if value == []:
        problem = f"The column {column!r} is an empty list; {PROMPTS}."
        return Row(number, None, names, problem=problem)
    if not isinstance(value, str):
        return Row(number, value, names)
    prompt = text_prompt(column, value)
    return Row(number, prompt, names, problem=NO_MESSAGES if prompt is None else None)


def _prompts(column: pa.Array) -> list[Any]:
    """Texts and messages; `_NOT_UTF8` for one that is not."""
    try:
        return [_prompt(value) for value in json_values(column, "strict")]
    except UnicodeDecodeError:
        if len(column) == 1:
            return [_NOT_UTF8]
        return [value for at in range(len(column)) for value in _prompts(column.slice(at, 1))]


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
