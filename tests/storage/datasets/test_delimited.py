"""Tables of text: quotes, ragged rows, records of many lines, and none lost."""

import csv
import io
import tracemalloc
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.datasets.readers.field_types import FieldType, field_types
from storage.datasets.readers.kinds import open_source
from storage.datasets.readers.rows import has_rows, read_rows
from storage.datasets.values.rows import Row
from storage.datasets.values.sources import Kind, Limits
from storage.errors import InputNotUnderstood

CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
CELLS = st.lists(st.tuples(CELL, CELL), max_size=6)


def rows(folder: Path, content: bytes, limit: int = 1 << 20, kind: Kind = Kind.CSV) -> list[Row]:
    path = folder / "in.csv"
    path.write_bytes(content)
    return list(read_rows(open_source(path, kind=kind, limits=Limits(max_line_bytes=limit))))


def test_rows_are_told_by_the_line_they_begin_on(tmp_path: Path) -> None:
    found = rows(
        tmp_path,
        b'\xef\xbb\xbf"prompt",id\r\n\r\n'
        b'"Say ""hi"",\r\nthen\r\n\r\nstop.",1\r\n \r\nNext,2\r\nEnd,3',
    )
    assert [(row.number, row.prompt, row.fields["id"], row.problem) for row in found] == [
        (3, 'Say "hi",\r\nthen\r\n\r\nstop.', "1", None),
        (8, "Next", "2", None),
        (9, "End", "3", None),
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"one", "The row has 1 fields, the header 2."),
        (b"one,two,three", "The row has 3 fields, the header 2."),
        (b",two", "The column 'prompt' is empty."),
        (b"caf\xe9,two", "The column 'prompt' is not UTF-8 text"),
        (b'"never closed,two', "A quote is opened in this line and closed in none after it."),
        (b'"a "quote" inside",two', "Something other than a delimiter follows a closing quote."),
        (b"one\rtwo,three", "A carriage return stands within the line"),
        (b"x" * 99, "The line is longer than 50 bytes."),
    ],
)
def test_a_row_that_cannot_be_read_is_reported_and_costs_no_other(
    tmp_path: Path, line: bytes, problem: str
) -> None:
    found = rows(tmp_path, b"prompt,id\nbefore,1\n" + line + b"\nafter,2\nlast,3", limit=50)
    assert [(row.number, row.prompt) for row in found] == [
        *((2, "before"), (3, None), (4, "after"), (5, "last"))
    ]
    assert (found[1].problem or "").startswith(problem)


def test_a_quote_that_is_never_closed_costs_no_line(tmp_path: Path) -> None:
    found = rows(tmp_path, b'prompt\n"opened\n' + b"line\n\n" * 5_000, limit=9_000)
    assert [row.number for row in found] == [2, *range(3, 10_003, 2)]
    assert [row.number for row in found if row.problem] == [2]


def test_a_quote_that_is_never_closed_takes_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(b'prompt\n"opened\n' + b"a line of it\n\n" * 200_000)
    source = open_source(path, limits=Limits(max_line_bytes=50_000))
    tracemalloc.start()
    found = list(islice(read_rows(source), 3))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [row.number for row in found] == [2, 3, 5]
    assert peak < 4_000_000


def test_a_value_that_is_not_sent_costs_no_row(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, b"prompt,note\nWhy?,caf\xe9\n")
    assert (row.prompt, row.fields) == ("Why?", {"prompt": "Why?", "note": "caf\ufffd"})


def test_names_of_columns_are_trimmed_and_an_index_has_that_of_its_place(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, b", prompt\n0,Why?\n")
    assert row.fields == {"column_1": "0", "prompt": "Why?"}


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ('"id";"the\nreview";prompt', ["id", "the\nreview", "prompt"]),
        ('"the\r\n\r\nreview, in full";prompt', ["the\r\n\r\nreview, in full", "prompt"]),
        ('"a\nb",prompt,"c;d;e;f"', ["a\nb", "prompt", "c;d;e;f"]),
        ('"a\nb"\tprompt\t"c,d,e;f"', ["a\nb", "prompt", "c,d,e;f"]),
        ('id;prompt;"a, b, c, d"', ["id", "prompt", "a, b, c, d"]),
        ("id;prompt;a, b, c, d", ["id", "prompt", "a, b, c, d"]),
        ('id;prompt;"a,prompt,b,c,d"', ["id", "prompt", "a,prompt,b,c,d"]),
        ('id;prompt;"say ""a, b, c"""', ["id", "prompt", 'say "a, b, c"']),
        ('"id,no";messages', ["id,no", "messages"]),
        ("prompt,a;b;c", ["prompt", "a;b;c"]),
        ("\n \nid;prompt", ["id", "prompt"]),
    ],
)
@pytest.mark.parametrize("name", ["in.csv", "in"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_whole_header_tells_the_delimiter(
    tmp_path: Path, header: str, names: list[str], name: str, end: str
) -> None:
    (tmp_path / name).write_bytes(f"\ufeff{header}{end}".encode())
    assert list(field_types(open_source(tmp_path / name))) == names


@pytest.mark.parametrize("column", ["the\nreview", "a, b, c, d", "id"])
def test_the_column_asked_for_tells_the_delimiter(tmp_path: Path, column: str) -> None:
    (tmp_path / "in.csv").write_text('id;"the\nreview";"a, b, c, d"\nx;y;z\n')
    (row,) = read_rows(open_source(tmp_path / "in.csv", column=column))
    assert row.prompt == row.fields[column]
    assert list(row.fields.values()) == ["x", "y", "z"]


def test_names_of_several_lines_are_shown_in_one(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text('id;"the\nreview"\n')
    with pytest.raises(InputNotUnderstood, match=r"it has id, the review\. Name the"):
        open_source(tmp_path / "in.csv")


def test_messages_are_read_from_their_json(tmp_path: Path) -> None:
    path = tmp_path / "in.tsv"
    messages = '[{"role": "user", "content": "Hi"}]'
    with path.open("w", newline="") as file:
        csv.writer(file, "excel-tab").writerows([["messages"], [messages], ["[plain] text"]])
    assert [row.prompt for row in read_rows(open_source(path))] == [
        [{"role": "user", "content": "Hi"}],
        "[plain] text",
    ]


def test_a_table_may_have_no_rows(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(b"id,prompt\n\n")
    source = open_source(tmp_path / "in.csv")
    assert not has_rows(source)
    assert field_types(source) == {"id": FieldType.TEXT, "prompt": FieldType.TEXT}


@given(CELLS, st.sampled_from(["\n", "\r\n"]), st.sampled_from([Kind.CSV, Kind.TSV]))
def test_every_record_that_python_writes_is_read(
    tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, str]], end: str, kind: Kind
) -> None:
    written = io.StringIO(newline="")
    delimiter = "\t" if kind is Kind.TSV else ","
    writer = csv.writer(written, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([("prompt", "other"), *(("Say " + a, b) for a, b in cells)])
    found = rows(tmp_path_factory.mktemp("csv"), written.getvalue().encode(), kind=kind)
    assert [(row.prompt, row.fields["other"]) for row in found] == [
        ("Say " + a, b) for a, b in cells
    ]


@given(st.lists(st.text('a",;\n\r', max_size=9), max_size=6))
def test_whatever_stands_in_a_table_each_of_its_last_lines_is_reported(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    content = "\n".join(["prompt,id", *lines, "", 'end,1"', "last,2", ""])
    found = rows(tmp_path_factory.mktemp("csv"), content.encode())
    numbers = [row.number for row in found]
    assert numbers == sorted(set(numbers))
    assert found[-1].prompt == "last"
