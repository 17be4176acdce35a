"""Arrow's values as JSON can hold them. Only imported where a Parquet file is really read."""

from base64 import b64encode
from collections.abc import Callable, Iterable
from datetime import UTC, tzinfo
from functools import partial
from itertools import islice, repeat
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc

from storage.datasets.readers.arrow_types import is_list, is_text
from storage.datasets.values.json_text import json_float
from storage.datasets.values.times import date_text, duration_text, time_text, timestamp_text

_DAY_MILLISECONDS = 86_400_000


def json_values(column: pa.Array, errors: str = "replace") -> list[Any]:
    """The values of a column, none changed: what JSON has no form for becomes text.

    Times are ISO 8601 (`storage.datasets.values.times`), decimals keep their digits, bytes are
    base64, floats as `json_float` has them. A map of text keys is an object, any other a list of
    pairs; so is what has a name twice.

    Args:
        errors: what becomes of texts that are not UTF-8, as in `bytes.decode`.

    Raises:
        UnicodeDecodeError: ``errors`` is "strict", and a text is not UTF-8.
    """
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return _of_extension(column, errors)
    if pa.types.is_dictionary(kind):
        return json_values(column.dictionary.take(column.indices), errors)
    if pa.types.is_run_end_encoded(kind):
        return json_values(pc.run_end_decode(column), errors)
    if pa.types.is_map(kind):
        entries = column.cast(pa.list_(pa.struct([kind.key_field, kind.item_field])))
        rows = _of_lists(entries, partial(_pairs, errors=errors))
        return _each(rows, _object) if is_text(kind.key_type) else rows
    if is_list(kind):
        return _of_lists(column, partial(json_values, errors=errors))
    if pa.types.is_struct(kind):
        return _of_structs(column, errors)
    return _of_leaf(column, errors)


def _of_extension(column: pa.ExtensionArray, errors: str) -> list[Any]:
    if isinstance(column.type, pa.UuidType):
        return _each(column.storage.to_pylist(), lambda value: str(UUID(bytes=value)))
    if isinstance(column.type, pa.Bool8Type):
        return _each(column.storage.to_pylist(), bool)
    return json_values(column.storage, errors)


def _of_lists(column: pa.Array, items_of: Callable[[pa.Array], list[Any]]) -> list[Any]:
    items = iter(items_of(column.flatten()))
    lengths = pc.list_value_length(column).to_pylist()
    return _each(lengths, lambda length: list(islice(items, length)))


def _of_structs(column: pa.StructArray, errors: str) -> list[Any]:
    kind = column.type
    names = [kind.field(index).name for index in range(kind.num_fields)]
    fields = [json_values(field, errors) for field in column.flatten()]
    rows = zip(*fields, strict=True) if fields else repeat((), len(column))
    valid = zip(column.is_valid().to_pylist(), rows, strict=False)
    return [_object(zip(names, row, strict=True)) if held else None for held, row in valid]


def _pairs(entries: pa.StructArray, errors: str) -> list[Any]:
    keys, values = (json_values(field, errors) for field in entries.flatten())
    return [list(pair) for pair in zip(keys, values, strict=True)]


def _object(pairs: Iterable[Iterable[Any]]) -> dict[str, Any] | list[Any]:
    """An object, or the pairs where a name comes twice."""
    listed = [tuple(pair) for pair in pairs]
    named = dict(listed)
    return named if len(named) == len(listed) else [list(pair) for pair in listed]


def _of_leaf(column: pa.Array, errors: str) -> list[Any]:
    kind = column.type
    if pa.types.is_temporal(kind):
        return _of_times(column)
    if is_text(kind):
        return _of_texts(column, errors)
    values: list[Any] = column.to_pylist()
    if pa.types.is_floating(kind):
        return _each(values, json_float)
    if pa.types.is_decimal(kind):
        return _each(values, lambda value: format(value, "f"))
    if any(isinstance(value, bytes) for value in values):
        return _each(values, lambda value: b64encode(value).decode())
    return values


def _of_texts(column: pa.Array, errors: str) -> list[Any]:
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        raw = column.cast(pa.large_string()).view(pa.large_binary()).to_pylist()
        return _each(raw, lambda value: value.decode(errors=errors))


def _of_times(column: pa.Array) -> list[Any]:
    kind = column.type
    if pa.types.is_interval(kind):
        return _each(column.to_pylist(), list)
    integers = column.view(pa.int32() if kind.bit_width == 32 else pa.int64()).to_pylist()
    if pa.types.is_date32(kind):
        return _each(integers, date_text)
    if pa.types.is_date64(kind):
        return _each(integers, lambda value: date_text(value // _DAY_MILLISECONDS))
    if pa.types.is_time(kind):
        return _each(integers, partial(time_text, unit=kind.unit))
    if pa.types.is_duration(kind):
        return _each(integers, partial(duration_text, unit=kind.unit))
    zone = None if kind.tz is None else _zone(kind.tz)
    return _each(integers, partial(timestamp_text, unit=kind.unit, zone=zone))


def _zone(name: str) -> tzinfo:
    """The zone of a name; UTC, in which all instants are kept, where nobody knows the name."""
    try:
        zone: tzinfo = pa.lib.string_to_tzinfo(name)
    except (pa.ArrowException, LookupError, ValueError):
        return UTC
    return zone


def _each(values: list[Any], as_value: Callable[[Any], Any]) -> list[Any]:
    return [None if value is None else as_value(value) for value in values]
