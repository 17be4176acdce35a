"""Parquet of every type: its values in JSON, and its columns as they were."""

import io
from base64 import b64encode
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from columns.arrow import COLUMNS, LONG, inside, kept
from columns.results import answered

from storage.datasets.joining import OrderedResults, join_rows
from storage.datasets.readers.arrow_values import json_values
from storage.datasets.readers.kinds import open_source
from storage.datasets.readers.parquet_batches import check_writable
from storage.datasets.readers.rows import read_rows
from storage.datasets.values.results import ResultColumns
from storage.datasets.values.sources import Source
from storage.datasets.writers import row_groups
from storage.datasets.writers.json_lines import write_json_lines
from storage.datasets.writers.parquet import write_joined
from storage.errors import InputNotUnderstood

NAMES = ResultColumns.named("answer")
PROMPTS = ["a", "b", "c"]
OUTPUTS = [answered(f"row-{n}", prompt.upper()) for n, prompt in enumerate(PROMPTS, 1)]


def written(path: Path, column: pa.Array, *, nullable: bool = True) -> Source:
    schema = pa.schema([("prompt", pa.string()), pa.field("x", column.type, nullable)])
    pq.write_table(pa.table([PROMPTS, column], schema=schema), path)
    source = open_source(path)
    assert [row.prompt for row in read_rows(source)] == PROMPTS
    return source


def joined(source: Source, outputs: list[bytes] = OUTPUTS) -> io.BytesIO:
    output = io.BytesIO()
    write_joined(source, OrderedResults(outputs, []), NAMES, output)
    return output


def json_rows(source: Source) -> list[dict[str, Any]]:
    output = io.BytesIO()
    write_json_lines(join_rows(source, OUTPUTS, [], columns=NAMES), NAMES, output, output)
    return [orjson.loads(line) for line in output.getvalue().splitlines()]


def assert_unchanged(source: Source) -> None:
    before, after = pq.read_table(source.path), pq.read_table(joined(source))
    assert after.select(before.column_names).schema.equals(before.schema, check_metadata=True)
    # Arrow itself takes two NaN for different values.
    assert str(after["x"].combine_chunks()) == str(before["x"].combine_chunks())
    assert after["answer"].to_pylist() == ["A", "B", "C"]


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_of_any_type_is_read_and_written(tmp_path: Path, name: str) -> None:
    column, in_json = COLUMNS[name]
    source = written(tmp_path / "in.parquet", column)
    assert_unchanged(source)
    rows = json_rows(source)
    assert [row["x"] for row in rows] == in_json
    assert [row["answer"] for row in rows] == ["A", "B", "C"]


NESTED = [
    *("string", "string_view", "binary_view", "list_view", "map of views", "category", "null"),
    *("fixed_list of texts", "timestamp ns UTC", "decimal256", "uuid", "json in views"),
]


@pytest.mark.parametrize("name", NESTED)
def test_a_column_of_any_type_may_stand_inside_of_another(tmp_path: Path, name: str) -> None:
    column, in_json = COLUMNS[name]
    for outer, nested in inside(column).items():
        source = written(tmp_path / "in.parquet", nested, nullable=outer == "struct")
        assert_unchanged(source)
        if outer == "list":
            assert [row["x"] for row in json_rows(source)] == [in_json[:1], [], in_json[1:]]


def _with_views(path: Path) -> list[Any]:
    """Messages as Polars writes them: Arrow's schema has views where Arrow cannot write them."""
    messages = [[{"role": "user", "content": f"{LONG} {n}"}, {"role": "assistant", "content": None}]
                for n in range(3)]  # fmt: skip
    table = pa.table({"messages": messages})
    message = pa.struct([("role", pa.string_view()), ("content", pa.string_view())])
    schema = pa.schema([("messages", pa.large_list(pa.field("element", message)))])
    with pq.ParquetWriter(path, table.schema, store_schema=False) as writer:
        writer.write_table(table)
        arrow_schema = b64encode(schema.serialize().to_pybytes())
        writer.add_key_value_metadata({"ARROW:schema": arrow_schema})
    assert pq.read_schema(path).field("messages").type.value_type == message
    return messages


def test_messages_of_views_are_sent_and_come_back(tmp_path: Path) -> None:
    messages = _with_views(tmp_path / "in.parquet")
    source = open_source(tmp_path / "in.parquet")
    assert [row.prompt for row in read_rows(source)] == [
        [user, {"role": "assistant"}] for user, _ in messages
    ]
    assert [row["messages"] for row in json_rows(source)] == messages
    again = pq.ParquetFile(joined(source))
    assert again.schema_arrow.field("messages") == pq.read_schema(source.path).field("messages")
    assert again.read()["messages"].to_pylist() == messages


@pytest.mark.parametrize("kind", [pa.string_view(), pa.large_string(), pa.json_()])
def test_prompts_of_any_kind_of_text(tmp_path: Path, kind: pa.DataType) -> None:
    storage = pa.array(["Why?", None, LONG], getattr(kind, "storage_type", kind))
    prompts = pa.ExtensionArray.from_storage(kind, storage) if kind == pa.json_() else storage
    pq.write_table(pa.table({"prompt": prompts}), tmp_path / "in")
    assert [row.prompt for row in read_rows(open_source(tmp_path / "in"))] == ["Why?", None, LONG]


def test_types_that_parquet_lacks_have_values_in_json_too() -> None:
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array(["a", None]))
    assert json_values(runs) == ["a", "a", None]
    intervals = pa.array([(1, 2, 3), None], pa.month_day_nano_interval())
    assert json_values(intervals) == [[1, 2, 3], None]
    assert json_values(pa.array([{}, None], pa.struct([]))) == [{}, None]
    assert json_values(pa.array([], kept(pa.timestamp("ns"), []).type)) == []
    tags = pa.array([0, 1], pa.int8())
    union = pa.UnionArray.from_sparse(tags, [pa.array([1, 2]), pa.array(["x", "y"])])
    assert json_values(union) == [1, "y"]


@pytest.mark.parametrize(
    "kind",
    [pa.month_day_nano_interval(), pa.sparse_union([pa.field("a", pa.int8())]), pa.struct([])],
)
def test_a_column_that_cannot_be_written_again_is_named_with_its_type(kind: pa.DataType) -> None:
    with pytest.raises(InputNotUnderstood) as caught:
        check_writable("in.parquet", pa.field("x", kind))
    assert f"The column 'x' of in.parquet is of type {kind}, which cannot" in str(caught.value)


def test_a_slice_has_its_own_values() -> None:
    for name, (column, in_json) in COLUMNS.items():
        assert json_values(column[1:]) == in_json[1:], name
        for nested in inside(column).values():
            assert json_values(nested[1:]) == json_values(nested)[1:], name


@pytest.mark.parametrize(("year", "unit"), [(9999, "us"), (1001, "us"), (2026, "ns")])
def test_old_times_of_96_bits_do_not_wrap_around(tmp_path: Path, year: int, unit: str) -> None:
    times = pa.array([datetime(year, 12, 31, microsecond=1), None, datetime(2026, 1, 1)])
    table = pa.table({"prompt": PROMPTS, "x": times, "in": pa.array([[time] for time in times])})
    pq.write_table(table, tmp_path / "in", use_deprecated_int96_timestamps=True)
    source = open_source(tmp_path / "in")
    first, second, third = json_rows(source)
    assert first["x"] == f"{year}-12-31T00:00:00.000001"
    assert first["in"] == [first["x"]]
    assert (second["x"], third["x"]) == (None, "2026-01-01T00:00:00")
    again = pq.read_table(joined(source))
    assert again["x"].type == pa.timestamp(unit)
    assert again["x"].cast(pa.timestamp("us")).equals(table["x"])


def test_texts_that_are_not_utf8(tmp_path: Path) -> None:
    raw = pa.array([b"fine", b"l\xe4tin", None]).view(pa.string())
    pq.write_table(pa.table({"prompt": raw, "x": raw}), tmp_path / "in")
    source = open_source(tmp_path / "in")
    rows = list(read_rows(source))
    assert [row.prompt for row in rows] == ["fine", None, None]
    assert [row.problem for row in rows] == [None, "The text in 'prompt' is not UTF-8.", None]
    assert [row["x"] for row in json_rows(source)] == ["fine", "l\ufffdtin", None]
    again = pq.read_table(joined(source))["x"].combine_chunks().view(pa.binary())
    assert again.to_pylist() == [b"fine", b"l\xe4tin", None]


def test_a_file_whose_name_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "f\udce9.parquet"
    buffer = io.BytesIO()
    pq.write_table(pa.table({"prompt": PROMPTS}), buffer)
    path.write_bytes(buffer.getvalue())
    assert [row.prompt for row in read_rows(open_source(path))] == PROMPTS


def test_no_rows_are_a_file_with_all_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), tmp_path / "in")
    source = open_source(tmp_path / "in")
    assert list(read_rows(source)) == []
    again = pq.read_table(joined(source, []))
    assert (again.num_rows, again.column_names) == (0, ["prompt", *NAMES.all])


def _answers(rows: int) -> list[bytes]:
    return [answered(f"row-{n}", "A") for n in range(1, rows + 1)]


def test_row_groups_gather_many_small_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 10_000 < row_groups.GROUP_ROWS < 1_000_000
    monkeypatch.setattr(row_groups, "GROUP_ROWS", 1_024)
    pq.write_table(pa.table({"prompt": ["a"] * 1_500}), tmp_path / "in", row_group_size=10)
    file = pq.ParquetFile(joined(open_source(tmp_path / "in"), _answers(1_500)))
    groups = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    assert (len(groups), sum(groups)) == (2, 1_500)
    assert groups[0] >= 1_024


def test_messages_of_several_row_groups(tmp_path: Path) -> None:
    messages = [[{"role": "user", "content": f"say {n % 7}"}] for n in range(300)]
    table = pa.table({"messages": messages, "tags": [[str(n), "x"] for n in range(300)]})
    pq.write_table(table, tmp_path / "in", row_group_size=70)
    source = open_source(tmp_path / "in")
    assert [row.prompt for row in read_rows(source)] == messages
    again = pq.read_table(joined(source, _answers(300)))
    assert again.select(table.column_names).to_pylist() == table.to_pylist()


def test_row_groups_of_large_values_have_fewer_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_groups, "GROUP_BYTES", 1_000_000)
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 640, pa.int32()), ["x" * 10_000])
    table = pa.table({"prompt": column.dictionary_decode()})
    pq.write_table(table, tmp_path / "in")
    output = joined(open_source(tmp_path / "in"), _answers(640))
    file = pq.ParquetFile(output)
    assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [128] * 5
    assert file.read()["prompt"].to_pylist() == table["prompt"].to_pylist()


@pytest.mark.parametrize(("ordered", "groups"), [(False, 3), (True, 4)])
def test_categories_of_several_row_groups_stay_readable(
    tmp_path: Path, *, ordered: bool, groups: int
) -> None:
    kind = pa.dictionary(pa.int8(), pa.string(), ordered)
    schema = pa.schema([("prompt", pa.string()), ("x", kind), ("in", pa.list_(kind))])
    with pq.ParquetWriter(tmp_path / "in", schema) as writer:
        for group in range(4):
            # Indices of 8 bits have room for 128 categories: those of two groups in the middle.
            size = 100 if group in (0, 3) else 60
            values = pa.array([f"{group} {n}" for n in range(size)])
            column = pa.DictionaryArray.from_arrays(pa.array(range(size), pa.int8()), values,
                                                    ordered=ordered)  # fmt: skip
            lists = pa.ListArray.from_arrays(pa.array(range(size + 1), pa.int32()), column)
            rows = [["a"] * size, column, lists]
            writer.write_table(pa.table(rows, schema=schema))
    before = pq.read_table(tmp_path / "in")
    output = joined(open_source(tmp_path / "in"), _answers(320))
    assert pq.ParquetFile(output).num_row_groups == groups
    after = pq.read_table(output).select(before.column_names)
    assert after.schema == before.schema
    assert after.to_pylist() == before.to_pylist()


def test_a_large_row_group_is_never_in_memory(tmp_path: Path) -> None:
    texts = [f"{n} " * 1_000 for n in range(5_000)]
    pq.write_table(pa.table({"prompt": texts}), tmp_path / "in", data_page_size=100_000)
    before, most, rows = pa.total_allocated_bytes(), 0, 0
    for row in read_rows(open_source(tmp_path / "in")):
        most, rows = max(most, pa.total_allocated_bytes() - before), row.number
    assert rows == 5_000
    assert most < 12_000_000, "the texts are 24 MB"


def test_categories_are_kept_once_a_group(tmp_path: Path) -> None:
    values = pa.array([f"category {n} of many" for n in range(10_000)])
    column = pa.DictionaryArray.from_arrays(pa.array([*range(10_000)], pa.int32()), values)
    pq.write_table(pa.table({"prompt": ["a"] * 10_000, "x": column}), tmp_path / "in")
    held = []

    class Output(io.BytesIO):
        def write(self, data: Any) -> int:
            held.append(pa.total_allocated_bytes() - before)
            return super().write(data)

    before, output = pa.total_allocated_bytes(), Output()
    results = OrderedResults(_answers(10_000), [])
    write_joined(open_source(tmp_path / "in"), results, NAMES, output)
    assert pq.ParquetFile(output).num_row_groups == 1
    assert pq.read_table(output)["x"].combine_chunks().equals(column)
    assert max(held) < 10_000_000, "157 batches with their own categories are 40 MB"


def _damaged_beside(path: Path) -> None:
    rows = [f"row {n}" * 9 for n in range(5_000)]
    pq.write_table(pa.table({"prompt": ["a"] * 5_000, "note": rows}), path, compression="none",
                   use_dictionary=False)  # fmt: skip
    data = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(0).column(1).data_page_offset
    data[start + 4 : start + 4_000] = bytes(3_996)
    path.write_bytes(data)


def test_a_column_beside_the_prompt_that_is_damaged_is_named_before_any_work(
    tmp_path: Path,
) -> None:
    _damaged_beside(tmp_path / "in.parquet")
    with pytest.raises(InputNotUnderstood, match=r"'note', of type string, cannot be read"):
        list(read_rows(open_source(tmp_path / "in.parquet")))
