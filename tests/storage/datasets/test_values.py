"""Values keep what they say: times beyond Python's, fields of mixed types, messages as text."""

import io
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from columns.results import answered
from hypothesis import given
from hypothesis import strategies as st

from storage.datasets.joining import join_rows
from storage.datasets.readers.field_types import FieldType, field_types
from storage.datasets.readers.kinds import open_source
from storage.datasets.readers.rows import read_rows
from storage.datasets.request_lines import RequestOptions, request_lines
from storage.datasets.values.results import Record, Result, ResultColumns
from storage.datasets.values.times import date_text, duration_text, time_text, timestamp_text
from storage.datasets.writers.json_lines import write_json_lines
from storage.datasets.writers.parquet import write_records
from storage.errors import InputNotUnderstood

BERLIN = ZoneInfo("Europe/Berlin")
EPOCH = datetime(1970, 1, 1)
BIG = 123456789012345678901234567890
DECIMAL = "-123456789012345678.12"


@given(st.datetimes(), st.sampled_from([None, UTC, BERLIN]))
def test_a_timestamp_is_what_python_says_where_python_can(
    moment: datetime, zone: ZoneInfo | None
) -> None:
    microseconds = (moment - EPOCH) // timedelta(microseconds=1)
    text = timestamp_text(microseconds, "us", zone)
    again = datetime.fromisoformat(text)
    assert again.replace(tzinfo=None) == moment if zone is None else again.tzinfo is not None
    if zone is not None:
        assert again == moment.replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (timestamp_text(-1, "ns"), "1969-12-31T23:59:59.999999999"),
        (timestamp_text(2**63 - 1, "s"), "292277026596-12-04T15:30:07"),
        (timestamp_text(0, "s", ZoneInfo("Asia/Kolkata")), "1970-01-01T05:30:00+05:30"),
        (timestamp_text(0, "s", ZoneInfo("America/Lima")), "1969-12-31T19:00:00-05:00"),
        # Before 1893 Berlin's offset had seconds, which ISO 8601 has no form for.
        (timestamp_text(-(10**10), "s", BERLIN), "1653-02-10T06:13:20Z"),
        (timestamp_text(10**12, "s", BERLIN), "33658-09-27T01:46:40Z"),
        (date_text(-719_162), "0001-01-01"),
        (date_text(-719_163), "0000-12-31"),
        (time_text(86_400, "s"), "24:00:00"),
        (time_text(-1, "ms"), "-00:00:00.001000"),
        (duration_text(-90_061_000_000_001, "ns"), "-P1DT3661.000000001S"),
    ],
)
def test_times_that_python_has_no_values_for(text: str, expected: str) -> None:
    assert text == expected


# Two values of a field, the column that holds both of them, and how it does.
MIXED: list[tuple[str, pa.DataType, list[Any]]] = [
    ("1 null", pa.int64(), [1, None]),
    (f"{2**63 - 1} {-(2**63)}", pa.int64(), [2**63 - 1, -(2**63)]),
    (f"{2**64 - 1} {2**53 + 1}", pa.uint64(), [2**64 - 1, 2**53 + 1]),
    (f"{2**64 - 1} -1", pa.string(), [str(2**64 - 1), "-1"]),
    (f"1 {BIG}", pa.string(), ["1", str(BIG)]),
    ("1 2.5", pa.float64(), [1.0, 2.5]),
    (f"{2**53} 1.5", pa.float64(), [2.0**53, 1.5]),
    (f"{2**53 + 1} 1.5", pa.string(), [str(2**53 + 1), "1.5"]),
    (f"1.5 -{2**53 + 1}", pa.string(), ["1.5", f"-{2**53 + 1}"]),
    (f"{10**400} 1.5", pa.string(), [str(10**400), "1.5"]),
    ("true 1", pa.string(), ["true", "1"]),
    ("true null", pa.bool_(), [True, None]),
    ("null null", pa.string(), [None, None]),
    ('"x" 1', pa.string(), ["x", "1"]),
    (f'{{"id":{BIG}}} [{2**53 + 1},1.5]', pa.string(), [f'{{"id":{BIG}}}', f"[{2**53 + 1},1.5]"]),
    ("0.1 -0.0", pa.float64(), [0.1, -0.0]),
    ("1.50 -2E+3", pa.float64(), [1.5, -2000.0]),
    ("0.8444218515250481 1", pa.float64(), [0.8444218515250481, 1.0]),
    ("1e22 0e-999", pa.float64(), [1e22, 0.0]),
    ("5e-324 1.7976931348623157e308", pa.float64(), [5e-324, 1.7976931348623157e308]),
    (f"{DECIMAL} 1.50", pa.string(), [DECIMAL, "1.50"]),
    ("1e-400 1", pa.string(), ["1e-400", "1"]),
    ("0.84442185152504812 null", pa.string(), ["0.84442185152504812", None]),
    (f"1e-{BIG} 1.5", pa.string(), [f"1e-{BIG}", "1.5"]),
    (f"[{DECIMAL},NaN] 1e-400", pa.string(), [f'[{DECIMAL},"NaN"]', "1e-400"]),
]


@pytest.mark.parametrize(("values", "kind", "column"), MIXED)
def test_a_field_becomes_a_column_that_holds_all_of_its_values(
    tmp_path: Path, values: str, kind: pa.DataType, column: list[Any]
) -> None:
    lines = (f'{{"prompt":"a","x":{value}}}\n' for value in values.split(" "))
    (tmp_path / "in").write_text("".join(lines))
    source = open_source(tmp_path / "in")
    names, output = ResultColumns.named("answer"), io.BytesIO()
    records = join_rows(source, [answered("line-1", "A"), answered("line-2", "B")], [])
    write_records(records, field_types(source), names, output)
    written = pq.read_table(output)
    assert written["x"].type == kind
    assert written["x"].to_pylist() == column
    assert written["answer"].to_pylist() == ["A", "B"]


@pytest.mark.parametrize("number", [DECIMAL, "1e-400", "1.50", "2E+3", "-0.0", "0.1", f"{BIG}.0"])
@pytest.mark.parametrize("beside", ["1", "null", "NaN"])
def test_numbers_keep_their_digits_in_json_lines(tmp_path: Path, number: str, beside: str) -> None:
    message = f'{{"role":"user","content":"a","x":{number}}}'
    line = f'{{"messages":[{message}],"x":[{{"y":{number}}}],"z":{number}}}'
    (tmp_path / "in").write_text(f'{line}\n{{"prompt":"a","x":[{number},{beside}]}}\n')
    source = open_source(tmp_path / "in")
    output, names = io.BytesIO(), ResultColumns.named("answer")
    records = join_rows(source, [answered("line-1", "A"), answered("line-2", "B")], [])
    write_json_lines(records, names, output, output)
    first, second = output.getvalue().decode().splitlines()
    kept = '"NaN"' if beside == "NaN" else beside
    assert first == line[:-1] + ',"answer":"A","finish_reason":"stop"}'
    assert second.startswith(f'{{"prompt":"a","x":[{number},{kept}],')
    assert message in b"".join(request_lines(source, RequestOptions())).decode()


@pytest.mark.parametrize("number", ["7", "7.5", DECIMAL])
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{}", "line 1 is a number, not an object"),
        ('{{"prompt": {}}}', "The field 'prompt' is a number;"),
        ('{{"prompt": {}, "x": NaN}}', "The field 'prompt' is a number;"),
    ],
)
def test_a_number_is_called_one_however_many_digits_it_has(
    tmp_path: Path, number: str, line: str, message: str
) -> None:
    (tmp_path / "in.jsonl").write_text(line.format(number) + "\n")
    with pytest.raises(InputNotUnderstood, match=message):
        open_source(tmp_path / "in.jsonl")


NAN, INFINITY = float("nan"), float("inf")


def test_floats_that_json_lacks_are_text() -> None:
    fields = {"a": NAN, "b": [None, -INFINITY, {"c": INFINITY}], "d": "null", "e": 1.5}
    result = Result("line-1", 1, "A", "stop", None)
    output = io.BytesIO()
    names = ResultColumns.named("answer")
    write_json_lines([Record(fields, result)], names, output, output)
    assert orjson.loads(output.getvalue()) == {
        **{"a": "NaN", "b": [None, "-Infinity", {"c": "Infinity"}], "d": "null", "e": 1.5},
        **{"answer": "A", "finish_reason": "stop"},
    }
    types = dict.fromkeys("abd", FieldType.TEXT) | {"e": FieldType.FLOAT64}
    output = io.BytesIO()
    write_records([Record(fields, result), Record({"e": NAN}, result)], types, names, output)
    first, second = pq.read_table(output).to_pylist()
    assert (first["a"], first["b"], first["e"]) == (
        "NaN",
        '[null,"-Infinity",{"c":"Infinity"}]',
        1.5,
    )
    assert math.isnan(second["e"])


def nested(inner: str, depth: int) -> str:
    return '[{"a":' * (depth // 2) + inner + "}]" * (depth // 2)


# Where the interpreter's own limit lies, the reader gives up first, and that costs its row alone.
@pytest.mark.parametrize("depth", [2, 600, 800, *range(900, 1_000, 4), 5_000])
@pytest.mark.parametrize(("value", "kept"), [("null", "null"), ("NaN", '"NaN"'), ("1", "1")])
def test_what_can_be_read_is_written_however_deeply_it_is_nested(
    tmp_path: Path, value: str, kept: str, depth: int
) -> None:
    (tmp_path / "in.jsonl").write_text(
        f'{{"prompt":"a","x":{nested(value, depth)}}}\n{{"prompt":"b"}}\n'
    )
    source = open_source(tmp_path / "in.jsonl")
    results = [answered("line-1", "A"), answered("line-2", "B")]
    names, lines, table = ResultColumns.named("answer"), io.BytesIO(), io.BytesIO()
    write_json_lines(join_rows(source, results, []), names, lines, lines)
    write_records(join_rows(source, results, []), field_types(source), names, table)
    first, second = lines.getvalue().decode().splitlines()
    if depth <= 800:
        assert f'"x":{nested(kept, depth)},' in first
        assert pq.read_table(table)["x"].to_pylist() == [nested(kept, depth), None]
    assert '"answer":"A"' in first
    assert second == '{"prompt":"b","answer":"B","finish_reason":"stop"}'
    assert pq.read_table(table)["answer"].to_pylist() == ["A", "B"]


MESSAGES = [{"role": "user", "content": "Hi"}]
AS_TEXT = orjson.dumps(MESSAGES).decode()
TEXTS: list[tuple[str, Any]] = [
    (AS_TEXT, MESSAGES),
    (f"\n {AS_TEXT} ", MESSAGES),
    ("Name a colour.", "Name a colour."),
    ("[INST] Hi [/INST]", "[INST] Hi [/INST]"),
    ("{name}, hello", "{name}, hello"),
    ('"Hi"', '"Hi"'),
    ("5", "5"),
    ("", ""),
    ("[]", None),
    ('["Hi"]', None),
    (AS_TEXT[1:-1], None),
    (AS_TEXT[:-1], None),
    (AS_TEXT.replace('"', "'"), None),
]


@pytest.mark.parametrize(("text", "prompt"), TEXTS)
@pytest.mark.parametrize("kind", ["json", "parquet"])
@pytest.mark.parametrize("column", [None, "messages"])
def test_messages_may_be_json_in_a_text(
    tmp_path: Path, text: str, prompt: Any, kind: str, column: str | None
) -> None:
    rows = [{"messages": AS_TEXT}, {"messages": text}]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in")
    else:
        (tmp_path / "in").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    source = open_source(tmp_path / "in", column=column)
    assert [row.prompt for row in read_rows(source)] == [MESSAGES, prompt]


@pytest.mark.parametrize("column", ["prompt", "text"])
def test_json_in_any_other_column_is_a_prompt(tmp_path: Path, column: str) -> None:
    (tmp_path / "in").write_bytes(orjson.dumps({column: AS_TEXT}))
    (row,) = read_rows(open_source(tmp_path / "in", column=column))
    assert row.prompt == AS_TEXT


def test_content_in_parts_keeps_no_keys_that_a_part_lacks(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {"url": "x"}}]
    messages = [{"role": "user", "content": parts}]
    pq.write_table(pa.table({"messages": [messages]}), tmp_path / "in")
    (row,) = read_rows(open_source(tmp_path / "in"))
    assert row.prompt == messages
