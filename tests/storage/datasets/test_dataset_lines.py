"""The rows of a dataset become the lines of a batch, numbered over all of its files."""

import gzip
import io
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.datasets.values.sources import Kind
from storage.endpoints import COMPLETIONS
from storage.errors import (
    InputNotUnderstood,
    TemplateError,
)

TEMPLATE = "{{ id }}: {{ text }}"


def parquet(columns: dict[str, Any] | pa.Table, **options: Any) -> bytes:
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, "zstd", asbytes=True))


def requests(dataset: Any) -> list[dict[str, Any]]:
    return [orjson.loads(line.data) for line in dataset.lines()]


def contents(dataset: Any) -> list[str]:
    return [request["body"]["messages"][0]["content"] for request in requests(dataset)]


ROWS = [{"id": n, "text": f"row {n}"} for n in range(1, 4)]
TABLES = {
    "t.parquet": parquet({"id": [1, 2, 3], "text": ["row 1", "row 2", "row 3"], "more": [[]] * 3}),
    "t.jsonl": b"".join(orjson.dumps(row) + b"\n" for row in ROWS),
    "t.csv": b'id,text,more\n1,row 1,x\n2,"row 2","y\nz"\n3,row 3,\n',
    "t.tsv": b"id\ttext\n1\trow 1\n2\trow 2\n3\trow 3\n",
}
TABLES["t.jsonl.gz"] = gzip.compress(TABLES["t.jsonl"])
TABLES["t.jsonl.zst"] = zstd(TABLES["t.jsonl"][:40]) + zstd(TABLES["t.jsonl"][40:])
TABLES["t.csv.zst"] = zstd(TABLES["t.csv"])
TABLES["t.csv.gz"] = gzip.compress(TABLES["t.csv"])
TABLES["part-00000"] = TABLES["t.parquet"]
TABLES["rows"] = TABLES["t.jsonl"]
TABLES["semicolons.csv"] = TABLES["t.csv"].replace(b",", b";")


@pytest.mark.parametrize("name", TABLES)
def test_a_template_makes_a_request_of_each_row(lake: Any, name: str) -> None:
    lake.put(f"in/{name}", TABLES[name])
    dataset = lake.dataset("in", template=TEMPLATE, key="id")
    assert requests(dataset) == [
        {
            "custom_id": str(n),
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"messages": [{"role": "user", "content": f"{n}: row {n}"}]},
        }
        for n in (1, 2, 3)
    ]
    assert [line.number for line in dataset.lines()] == [1, 2, 3]
    origin = dataset.origins.of(3)
    assert (origin.file, origin.row) == (f"{lake.root}/in/{name}", 3)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("t.parquet", parquet({"prompt": ["a", "b"], "n": [1, 2]})),
        ("t.jsonl", b'{"prompt": "a"}\n\n{"prompt": "b"}'),
        ("t.csv", b"n,prompt\n1,a\n2,b\n"),
        ("t.txt", b"a\nb\n"),
        ("t", b"a\nb\n"),
    ],
)
def test_without_a_template_a_row_has_its_prompt(folder: Any, name: str, data: bytes) -> None:
    folder.put(name, data)
    dataset = folder.dataset(name, endpoint=COMPLETIONS)
    assert [(each["custom_id"], each["body"]) for each in requests(dataset)] == [
        ("row-1", {"prompt": "a"}),
        ("row-2", {"prompt": "b"}),
    ]


def test_messages_of_parquet_have_no_nulls(folder: Any) -> None:
    messages = [[{"role": "user", "content": "Hi", "name": None}], None]
    folder.put("t.parquet", parquet({"messages": messages, "id": ["x", None]}))
    first, second = requests(folder.dataset("t.parquet", key="id"))
    assert first["custom_id"] == "x"
    assert first["body"] == {"messages": [{"role": "user", "content": "Hi"}]}
    assert second["tidemill"]["problem"] == (
        "The key column 'id' is null; a custom_id is a text or a number."
    )
    assert second["tidemill"]["param"] == "tidemill.key"


def test_lines_of_requests_are_passed_on(folder: Any) -> None:
    line = b'{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"x": 1}}'
    folder.put("a.jsonl", line + b"\n\n" + line.replace(b"a", b"b", 1))
    folder.put("b.jsonl", b"{broken\n")
    dataset = folder.dataset("*.jsonl")
    found = list(dataset.lines())
    assert [each.number for each in found] == [1, 2, 3]
    assert (found[0].data, found[2].data) == (line, b"{broken")
    with pytest.raises(InputNotUnderstood, match="whole requests"):
        list(folder.dataset("*.jsonl", key="id").lines())


def test_rows_are_numbered_over_all_files_and_folders_are_columns(lake: Any) -> None:
    for day in (1, 2, 3):
        rows = {"text": [f"{day}.{n}" for n in range(day)]}
        lake.put(f"t/dt=2026-01-0{day}/a.parquet", parquet(rows))
    lake.put("t/dt=2026-01-02/empty.parquet", parquet({"text": pa.array([], pa.string())}))
    lake.put("t/dt=2026-01-02/nothing.parquet", b"")
    lake.put("t/_SUCCESS", b"")
    dataset = lake.dataset("t", template="{{ dt }} {{ text }}")
    assert contents(dataset) == [
        "2026-01-01 1.0",
        *["2026-01-02 2.0", "2026-01-02 2.1"],
        *["2026-01-03 3.0", "2026-01-03 3.1", "2026-01-03 3.2"],
    ]
    origins = [dataset.origins.of(line) for line in (1, 2, 3, 4, 6)]
    assert [(origin.file.split("/")[-2], origin.row) for origin in origins] == [
        ("dt=2026-01-01", 1),
        ("dt=2026-01-02", 1),
        ("dt=2026-01-02", 2),
        ("dt=2026-01-03", 1),
        ("dt=2026-01-03", 3),
    ]


KINDS: dict[str, tuple[pa.Array, list[str]]] = {
    "large strings": (pa.array(["a", None], pa.large_string()), ["a", ""]),
    "views": (pa.array(["a", "a longer text than fits"], pa.string_view()), []),
    "categories": (pa.array(["b", "a"]).dictionary_encode(), ["b", "a"]),
    "integers": (pa.array([1, None], pa.uint64()), ["1", ""]),
    "floats": (pa.array([1.5, float("nan")]), ["1.5", "NaN"]),
    "booleans": (pa.array([True, False]), ["true", "false"]),
    "decimals": (pa.array([Decimal("1.50"), Decimal("-0.01")]), ["1.50", "-0.01"]),
    "timestamps": (
        pa.array([datetime(2026, 1, 2, 3, 4), None], pa.timestamp("ns", "UTC")),
        ["2026-01-02T03:04:00Z", ""],
    ),
    "bytes": (pa.array([b"\x00\xff", None], pa.binary()), ["AP8=", ""]),
    "lists": (pa.array([["a", "b"], []]), ['["a","b"]', "[]"]),
    "structs": (pa.array([{"a": 1}, {"a": None}]), ['{"a":1}', '{"a":null}']),
    "nulls": (pa.nulls(2), ["", ""]),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_column_has_its_text(folder: Any, name: str) -> None:
    column, texts = KINDS[name]
    folder.put("t.parquet", parquet(pa.table({"x": column, "y": column, "n": [1, 2]})))
    template = "{{ x }}"
    found = contents(
        folder.dataset("t.parquet", template=[{"role": "user", "content": "<" + template + ">"}])
    )
    assert found == [f"<{text}>" for text in (texts or column.to_pylist())]


@pytest.mark.parametrize("rows", [1, 100, 20_000])
def test_row_groups_of_all_sizes_are_read(lake: Any, rows: int) -> None:
    """The columns together are larger than what is fetched whole, and read in pieces."""
    count = 5_000
    texts = [f"{n:06} {n * 7919 % 1_000_003:>500}" for n in range(count)]
    table = pa.table({"text": texts, "noise": [f"{n * n:>700}" for n in range(count)]})
    step = 1 if rows > 1 else 100
    table = table.take(list(range(0, count, step)))
    lake.put("t.parquet", parquet(table, row_group_size=rows, compression="none"))
    found = contents(lake.dataset("t.parquet", template="{{ text }}"))
    assert found == texts[::step]


def test_a_column_that_some_files_lack_is_null_there(folder: Any) -> None:
    folder.put("a.parquet", parquet({"id": [1]}))
    folder.put("b.parquet", parquet({"id": [2], "text": ["two"]}))
    assert contents(folder.dataset("*", template=TEMPLATE)) == ["1: ", "2: two"]
    folder.put("a.jsonl", b'{"id": 1}\n{"id": 2, "text": "two"}')
    assert contents(folder.dataset("a.jsonl", template=TEMPLATE)) == ["1: ", "2: two"]


@pytest.mark.parametrize(
    "data", [parquet({"id": [1], "txt": ["a"]}), b"id,txt\n1,a\n", b'{"id": 1, "txt": "a"}\n']
)
def test_a_column_that_there_is_not_is_named_with_those_there_are(folder: Any, data: bytes) -> None:
    folder.put("a", data)
    with pytest.raises(TemplateError, match=r"'text'.*'txt'.*'id'") as caught:
        list(folder.dataset("a", template=TEMPLATE).lines())
    assert caught.value.param.startswith("tidemill.template")
    with pytest.raises(TemplateError, match=r"no column 'key'.*'id', 'txt'") as caught:
        list(folder.dataset("a", template="{{ id }}", key="key").lines())
    assert caught.value.param == "tidemill.key"


@pytest.mark.parametrize(
    ("first", "second", "differs"),
    [
        (pa.array([1]), pa.array(["a"]), True),
        (pa.array([1]), pa.array([1.0]), True),
        (pa.array(["a"]), pa.array([["a"]]), True),
        (pa.array(["a"]), pa.array([b"a"]), True),
        (pa.array([datetime(2026, 1, 1)]), pa.array(["2026-01-01"]), True),
        (pa.array([1], pa.int8()), pa.array([1], pa.uint64()), False),
        (pa.array(["a"]), pa.array(["b"]).dictionary_encode(), False),
        (pa.array(["a"]), pa.array(["b"], pa.large_string()), False),
        (pa.array(["a"]), pa.nulls(1), False),
    ],
)
def test_types_that_differ_name_both_files(
    folder: Any, first: pa.Array, second: pa.Array, differs: bool
) -> None:
    folder.put("a.parquet", parquet(pa.table({"x": first, "other": first})))
    folder.put("b.parquet", parquet(pa.table({"x": second})))
    dataset = folder.dataset("*", template="{{ x }}")
    if not differs:
        assert len(list(dataset.lines())) == 2
        return
    with pytest.raises(InputNotUnderstood, match=r"'x' is of type .*a\.parquet.*b\.parquet"):
        list(dataset.lines())


def test_the_format_that_is_said_counts(folder: Any) -> None:
    folder.put("rows.txt", TABLES["t.jsonl"])
    assert (
        contents(folder.dataset("rows.txt", template=TEMPLATE, format=Kind.JSONL))[0] == "1: row 1"
    )
    folder.put("rows.csv", b"a,b\nc,d\n")
    assert contents(folder.dataset("rows.csv", format=Kind.TEXT)) == ["a,b", "c,d"]


@pytest.mark.parametrize(
    "make", [lambda text: text.encode(), lambda text: gzip.compress(text.encode())]
)
def test_files_of_white_space_are_empty(folder: Any, make: Callable[[str], bytes]) -> None:
    folder.put("a.csv", make(" \n\n"))
    folder.put("b.csv", make("id,text\n"))
    folder.put("c.csv", make("id,text\n1,a\n"))
    assert contents(folder.dataset("*", template=TEMPLATE)) == ["1: a"]
    assert contents(folder.dataset("*", column="text")) == ["a"]


@pytest.mark.parametrize("year", [2026, 9999])
def test_times_of_96_bits_are_read_in_what_holds_them_all(lake: Any, year: int) -> None:
    times = pa.array([datetime(year, 1, 2), None, datetime(2026, 1, 2)], pa.timestamp("us"))
    table = pa.table({"at": times, "old": times})
    lake.put("t.parquet", parquet(table, use_deprecated_int96_timestamps=True))
    found = contents(lake.dataset("t.parquet", template="<{{ at }}>"))
    assert found == [f"<{year}-01-02T00:00:00>", "<>", "<2026-01-02T00:00:00>"]


def test_names_with_dots_are_columns_of_their_own(folder: Any) -> None:
    table = pa.table({"a": [{"b": 1}], "a.b": ["x"], "": ["y"], "ä b": ["z"]})
    folder.put("t.parquet", parquet(table))
    template = '{{ a.b }} {{ row["a.b"] }} {{ row["ä b"] }}'
    assert contents(folder.dataset("t.parquet", template=template)) == ["1 x z"]
    assert contents(folder.dataset("t.parquet", template='{{ row["a.b"] }}')) == ["x"]
