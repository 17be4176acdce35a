"""Arrow's types: texts and lists of all kinds, and those that only differ in their layout."""

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

_TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_LISTS = (
    *(pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list),
    *(pa.types.is_list_view, pa.types.is_large_list_view),
)

_BYTES = (
    *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view),
    pa.types.is_fixed_size_binary,
)


def is_text(kind: pa.DataType) -> bool:
    """Whether a type is one of Arrow's three kinds of strings, or repeats such strings."""
    return _is_any(_TEXTS, kind.value_type if pa.types.is_dictionary(kind) else kind)


def is_list(kind: pa.DataType) -> bool:
    """Whether a type is one of Arrow's five kinds of lists."""
    return _is_any(_LISTS, kind)


def stored_type(kind: pa.DataType) -> pa.DataType:
    """The type that an extension's values are kept as; any other type itself."""
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def value_family(kind: pa.DataType) -> object:
    """What is equal for types of values that are written alike; `None` where all are null."""
    kind = stored_type(kind)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return value_family(kind.value_type)
    if pa.types.is_null(kind):
        return None
    named = (
        ("text", is_text),
        ("list", is_list),
        ("struct", pa.types.is_struct),
        ("integer", pa.types.is_integer),
        ("float", pa.types.is_floating),
        ("decimal", pa.types.is_decimal),
        ("date", pa.types.is_date),
        ("time", pa.types.is_time),
        ("timestamp", pa.types.is_timestamp),
        ("bytes", lambda kind: _is_any(_BYTES, kind)),
    )
    return next((name for name, holds in named if holds(kind)), kind.id)


def own_bytes(column: pa.Array) -> int:
    """The bytes of a column without its categories, which other columns may share."""
    return int((column.indices if pa.types.is_dictionary(column.type) else column).nbytes)


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The same columns with `plain_type`."""
    return pa.schema([field.with_type(plain_type(field.type)) for field in schema])


def plain_type(kind: pa.DataType) -> pa.DataType:
    """A type of the same values without views, which Arrow cannot write wherever they stand.

    `plain` does it to the values.
    """
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_struct(kind):
        return pa.struct([_plain_field(kind.field(index)) for index in range(kind.num_fields)])
    if pa.types.is_map(kind):
        fields = (_plain_field(field) for field in (kind.key_field, kind.item_field))
        return pa.map_(*fields, keys_sorted=kind.keys_sorted)
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_plain_field(kind.value_field), kind.list_size)
    if pa.types.is_list(kind) or pa.types.is_list_view(kind):
        return pa.list_(_plain_field(kind.value_field))
    if is_list(kind):
        return pa.large_list(_plain_field(kind.value_field))
    return kind


def plain(column: pa.Array) -> pa.Array:
    """A column as its `plain_type` has it. Arrow 26 itself casts views of lists to nonsense."""
    kind, target = column.type, plain_type(column.type)
    if kind.equals(target):
        return column
    if pa.types.is_struct(kind):
        fields = [plain(field) for field in column.flatten()]
        return pa.StructArray.from_arrays(fields, fields=list(target), mask=column.is_null())
    if pa.types.is_fixed_size_list(kind):
        size = kind.list_size
        items = plain(column.values.slice(column.offset * size, len(column) * size))
        return pa.FixedSizeListArray.from_arrays(items, type=target, mask=column.is_null())
    if pa.types.is_map(kind):
        entries = column.cast(pa.list_(pa.struct([kind.key_field, kind.item_field])))
        keys, items = (plain(field) for field in entries.flatten().flatten())
        offsets = _offsets(entries).cast(pa.int32())
        return pa.MapArray.from_arrays(offsets, keys, items, type=target, mask=column.is_null())
    if not is_list(kind):
        return column.cast(target)
    large = pa.types.is_large_list(target)
    of = pa.LargeListArray if large else pa.ListArray
    offsets = _offsets(column).cast(pa.int64() if large else pa.int32())
    return of.from_arrays(offsets, plain(column.flatten()), type=target, mask=column.is_null())


def _offsets(lists: pa.Array) -> pa.Array:
    """Where the lists of a column begin among its items, and where the last one ends."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).cast(pa.int64())
    return pa.concat_arrays([pa.array([0], pa.int64()), pc.cumulative_sum(lengths)])


def _plain_field(field: pa.Field) -> pa.Field:
    return field.with_type(plain_type(field.type))


def _is_any(tests: tuple[Callable[[pa.DataType], bool], ...], kind: pa.DataType) -> bool:
    return any(test(kind) for test in tests)
