"""Columns of every type that Parquet can hold, and their values as JSON has them."""

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

import pyarrow as pa

LONG = "a text of more than twelve bytes"
ZONES = {None: "", "UTC": "Z", "Europe/Berlin": "+01:00", "+02:00": "+02:00", "No/Where": "Z"}
HOURS = {None: 0, "UTC": 0, "Europe/Berlin": 1, "+02:00": 2, "No/Where": 0}
FRACTIONS = {"ms": (".001000", ".999000"), "us": (".000001", ".999999")} | {
    "ns": (".000000001", ".999999999")
}


def kept(kind: pa.DataType, values: list[int | None]) -> pa.Array:
    """A column of times from the integers that it is kept as."""
    return pa.array(values, pa.int32() if kind.bit_width == 32 else pa.int64()).view(kind)


def extension(kind: pa.DataType, values: list[Any]) -> pa.Array:
    return pa.ExtensionArray.from_storage(kind, pa.array(values, kind.storage_type))


def around_the_epoch(unit: str, zone: str | None) -> tuple[pa.Array, list[Any]]:
    """One unit after 1970-01-01T00:00 and one before it."""
    after, before = FRACTIONS[unit]
    hours, offset = HOURS[zone], ZONES[zone]
    last = f"1970-01-01T{hours - 1:02}:59:59" if hours else "1969-12-31T23:59:59"
    shown = [f"1970-01-01T{hours:02}:00:00{after}{offset}", None, f"{last}{before}{offset}"]
    return kept(pa.timestamp(unit, zone), [1, None, -1]), shown


def _floats(kind: pa.DataType) -> tuple[pa.Array, list[Any]]:
    return pa.array([1.5, float("nan"), float("-inf")], kind), [1.5, "NaN", "-Infinity"]


def _decimals(kind: pa.DataType) -> tuple[pa.Array, list[Any]]:
    values = [Decimal("1.50"), None, Decimal("-0.01")]
    return pa.array(values, kind), ["1.50", None, "-0.01"]


_TEXTS: list[Any] = [LONG, None, "ü"]
_BYTES: list[Any] = [b"a", None, b"\xff" * 20]
_BASE64 = ["YQ==", None, "//////////////////////////8="]
_LISTS: list[Any] = [["a", None], None, []]
_UUIDS = [uuid.UUID(int=5), uuid.UUID(int=7)]
_PAIRS = pa.array([[("a", 1)], [("a", 1), ("a", 2)], None], pa.map_(pa.string(), pa.int8()))

# Type by type, three rows and what JSON has for them.
COLUMNS: dict[str, tuple[pa.Array, list[Any]]] = {
    "null": (pa.nulls(3), [None] * 3),
    "bool": (pa.array([True, None, False]), [True, None, False]),
    "int8": (pa.array([-1, None, 3], pa.int8()), [-1, None, 3]),
    "uint64": (pa.array([2**64 - 1, None, 3], pa.uint64()), [2**64 - 1, None, 3]),
    "int64": (pa.array([-(2**63), None, 2**63 - 1]), [-(2**63), None, 2**63 - 1]),
    "half": _floats(pa.float16()),
    "float": _floats(pa.float32()),
    "double": _floats(pa.float64()),
    "string": (pa.array(_TEXTS), _TEXTS),
    "large_string": (pa.array(_TEXTS, pa.large_string()), _TEXTS),
    "string_view": (pa.array(_TEXTS, pa.string_view()), _TEXTS),
    "binary": (pa.array(_BYTES), _BASE64),
    "large_binary": (pa.array(_BYTES, pa.large_binary()), _BASE64),
    "binary_view": (pa.array(_BYTES, pa.binary_view()), _BASE64),
    "fixed_binary": (
        pa.array([b"abcd", None, b"wxyz"], pa.binary(4)),
        ["YWJjZA==", None, "d3h5eg=="],
    ),
    "decimal32": _decimals(pa.decimal32(5, 2)),
    "decimal64": _decimals(pa.decimal64(12, 2)),
    "decimal128": _decimals(pa.decimal128(38, 2)),
    "decimal256": _decimals(pa.decimal256(76, 2)),
    "date32": (
        pa.array([dt.date(2020, 1, 2), None, dt.date(1, 1, 1)]),
        ["2020-01-02", None, "0001-01-01"],
    ),
    "date64": (
        kept(pa.date64(), [86_400_000, None, -86_400_000]),
        ["1970-01-02", None, "1969-12-31"],
    ),
    "far dates": (
        kept(pa.date32(), [2_932_897, None, -719_529]),
        ["10000-01-01", None, "-0001-12-31"],
    ),
    "seconds": (
        kept(pa.timestamp("s"), [253_402_300_800, None, -1]),
        ["10000-01-01T00:00:00", None, "1969-12-31T23:59:59"],
    ),
    "far times": (
        kept(pa.timestamp("ms", "Europe/Berlin"), [2**62, None, -(2**62)]),
        ["146140482-04-24T15:36:27.904000Z", None, "-146136543-09-08T08:23:32.096000Z"],
    ),
    "time32": (
        kept(pa.time32("ms"), [1, None, 86_399_999]),
        ["00:00:00.001000", None, "23:59:59.999000"],
    ),
    "time64": (kept(pa.time64("us"), [0, None, 1]), ["00:00:00", None, "00:00:00.000001"]),
    "time in ns": (
        kept(pa.time64("ns"), [1, None, 86_399_000_000_000]),
        ["00:00:00.000000001", None, "23:59:59"],
    ),
    "duration": (kept(pa.duration("s"), [90_000, None, -86_400]), ["P1DT3600S", None, "-P1D"]),
    "duration in ns": (
        kept(pa.duration("ns"), [1, 0, -(2**63) + 1]),
        ["PT0.000000001S", "P0D", "-P106751DT85636.854775807S"],
    ),
    "list": (pa.array(_LISTS), _LISTS),
    "large_list": (pa.array(_LISTS, pa.large_list(pa.string())), _LISTS),
    "list_view": (pa.array(_LISTS, pa.list_view(pa.string())), _LISTS),
    "large_list_view": (pa.array(_LISTS, pa.large_list_view(pa.string_view())), _LISTS),
    "fixed_list": (
        pa.array([[1.0, float("inf")], None, [3.0, 4.0]], pa.list_(pa.float32(), 2)),
        [[1.0, "Infinity"], None, [3.0, 4.0]],
    ),
    "fixed_list of texts": (
        pa.array([["a", "b"], None, ["c", "d"]], pa.list_(pa.string_view(), 2)),
        [["a", "b"], None, ["c", "d"]],
    ),
    "map": (_PAIRS, [{"a": 1}, [["a", 1], ["a", 2]], None]),
    "map of numbers": (
        pa.array([[(1, 2.5)], [], None], pa.map_(pa.int32(), pa.float64())),
        [[[1, 2.5]], [], None],
    ),
    "map of views": (
        pa.array([[("a", b"x")], [], None], pa.map_(pa.string_view(), pa.binary_view())),
        [{"a": "eA=="}, {}, None],
    ),
    "struct": (
        pa.array([{"a": 1, "b": [float("nan")]}, None, {"a": None, "b": None}]),
        [{"a": 1, "b": ["NaN"]}, None, {"a": None, "b": None}],
    ),
    "struct of times": (
        pa.StructArray.from_arrays(
            [kept(pa.timestamp("ns"), [1, None, 0]), pa.array(_TEXTS, pa.string_view())], ["t", "v"]
        ),
        [
            {"t": "1970-01-01T00:00:00.000000001", "v": LONG},
            {"t": None, "v": None},
            {"t": "1970-01-01T00:00:00", "v": "ü"},
        ],
    ),
    "struct with a name twice": (
        pa.StructArray.from_arrays([pa.array([1, 2, 3])] * 2, ["t", "t"]),
        [[["t", n], ["t", n]] for n in (1, 2, 3)],
    ),
    "dictionary": (pa.array(["a", None, "b"]).dictionary_encode(), ["a", None, "b"]),
    "category": (
        pa.DictionaryArray.from_arrays(pa.array([1, None, 0], pa.int8()), ["a", "b"], ordered=True),
        ["b", None, "a"],
    ),
    "category of bytes": (pa.array([b"a", None, b"b"]).dictionary_encode(), ["YQ==", None, "Yg=="]),
    "category of numbers": (pa.array([5, None, 6]).dictionary_encode(), [5, None, 6]),
    "categories in lists": (
        pa.array([["a", "b"], None, ["a"]], pa.list_(pa.dictionary(pa.int8(), pa.string()))),
        [["a", "b"], None, ["a"]],
    ),
    "uuid": (
        extension(pa.uuid(), [_UUIDS[0].bytes, None, _UUIDS[1].bytes]),
        [str(_UUIDS[0]), None, str(_UUIDS[1])],
    ),
    "json": (extension(pa.json_(), ['{"a":1}', None, "[]"]), ['{"a":1}', None, "[]"]),
    "json in views": (extension(pa.json_(pa.string_view()), ["1", None, "[]"]), ["1", None, "[]"]),
    "bool8": (extension(pa.bool8(), [1, None, 0]), [True, None, False]),
    "opaque": (extension(pa.opaque(pa.string(), "t", "v"), _TEXTS), _TEXTS),
    "tensor": (
        extension(pa.fixed_shape_tensor(pa.int32(), [2]), [[1, 2], None, [3, 4]]),
        [[1, 2], None, [3, 4]],
    ),
    **{
        f"timestamp {unit} {zone}": around_the_epoch(unit, zone)
        for unit in FRACTIONS
        for zone in ZONES
    },
}


def inside(column: pa.Array) -> dict[str, pa.Array]:
    """Columns of three rows that hold the three values of another one inside them."""
    starts, ends = pa.array([0, 1, 1], pa.int32()), pa.array([0, 1, 1, 3], pa.int32())
    lengths, keys = pa.array([1, 0, 2], pa.int32()), pa.array(["k", "l", "m"])
    large = pa.int64()
    required = [pa.field("n", large, nullable=False), pa.field("v", column.type)]
    return {
        "list": pa.ListArray.from_arrays(ends, column),
        "large list": pa.LargeListArray.from_arrays(ends.cast(large), column),
        "list view": pa.ListViewArray.from_arrays(starts, lengths, column),
        "large list view": pa.LargeListViewArray.from_arrays(
            starts.cast(large), lengths.cast(large), column
        ),
        "fixed list": pa.FixedSizeListArray.from_arrays(column, 1),
        "struct": pa.StructArray.from_arrays([pa.array([1, 2, 3]), column], fields=required),
        "map": pa.MapArray.from_arrays(ends, keys, column),
    }
