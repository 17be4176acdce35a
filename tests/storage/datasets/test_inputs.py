"""An input is told by its content, and what is not understood is refused with the line shown."""

import gzip
from itertools import islice
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.datasets.readers.kinds import open_source
from storage.datasets.readers.rows import read_rows
from storage.datasets.values.sources import Kind, Limits
from storage.errors import InputNotUnderstood

REQUEST = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"model": "m"}}
BLANK_LINES = ["\x1f", "\x1c \x7f", "\u0085", "\u3000\t\r"]


def write_lines(path: Path, *lines: object) -> Path:
    path.write_bytes(
        b"".join((x if isinstance(x, bytes) else orjson.dumps(x)) + b"\n" for x in lines)
    )
    return path


def test_batch_requests_are_known_by_their_keys_and_name_their_endpoint(tmp_path: Path) -> None:
    source = open_source(write_lines(tmp_path / "in.txt", REQUEST))
    assert (source.kind, source.endpoint) == (Kind.REQUESTS, "/v1/completions")


def test_batch_requests_are_known_though_the_first_lines_are_broken(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "in.jsonl", b'{"custom_id": "a", ', b"", b"nonsense", REQUEST)
    assert open_source(path).kind is Kind.REQUESTS


@pytest.mark.parametrize(
    "row", [{"prompt": "Hi", "id": 7}, {"messages": [{"role": "user", "content": "Hi"}]}]
)
def test_json_lines_with_prompts(tmp_path: Path, row: dict[str, object]) -> None:
    source = open_source(write_lines(tmp_path / "in", row))
    assert source.kind is Kind.JSONL
    (read,) = read_rows(source)
    assert read.fields == row
    assert read.prompt == row.get("prompt", row.get("messages"))


def test_text_is_one_prompt_a_line_and_keeps_its_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "prompts"
    path.write_bytes("\ufeffWas ist größer?\r\n\n  \nWhy? {not json\n".encode())
    rows = list(read_rows(open_source(path)))
    assert [(row.number, row.prompt) for row in rows] == [
        (1, "Was ist größer?"),
        (4, "Why? {not json"),
    ]


@pytest.mark.parametrize("blank", BLANK_LINES)
def test_a_line_of_control_characters_alone_is_no_prompt(tmp_path: Path, blank: str) -> None:
    path = tmp_path / "prompts"
    path.write_text(f"Why?\n{blank}\nHow?", encoding="utf-8", newline="")
    rows = list(read_rows(open_source(path)))
    assert [(row.number, row.prompt) for row in rows] == [(1, "Why?"), (3, "How?")]


@pytest.mark.parametrize("blank", BLANK_LINES)
def test_a_line_of_control_characters_alone_is_no_row_of_json(tmp_path: Path, blank: str) -> None:
    path = write_lines(tmp_path / "in", {"prompt": "a"}, blank.encode(), {"prompt": "b"})
    rows = list(read_rows(open_source(path)))
    assert [(row.number, row.raw, row.prompt) for row in rows] == [(1, None, "a"), (3, None, "b")]


@pytest.mark.parametrize("blank", BLANK_LINES)
def test_blank_lines_before_the_first_request_tell_nothing(tmp_path: Path, blank: str) -> None:
    source = open_source(write_lines(tmp_path / "in", blank.encode(), REQUEST))
    assert (source.kind, source.endpoint) == (Kind.REQUESTS, "/v1/completions")


@pytest.mark.parametrize("content", ["\u200b", "\u200b\ufeff", "\u00ad"])
def test_a_character_that_nobody_sees_is_a_prompt(tmp_path: Path, content: str) -> None:
    path = tmp_path / "prompts"
    path.write_text(f"Why?\n{content}\n", encoding="utf-8")
    rows = list(read_rows(open_source(path)))
    assert [(row.number, row.prompt) for row in rows] == [(1, "Why?"), (2, content)]


def test_a_line_that_is_no_object_is_kept_as_it_is(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "in", {"prompt": "a"}, b"{broken", [1], {"other": 1})
    rows = list(read_rows(open_source(path)))
    assert [row.raw for row in rows] == [None, b"{broken", b"[1]", None]
    assert [row.prompt for row in rows] == ["a", None, None, None]


def test_column_names_the_field(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "in", {"question": "Why?", "prompt": "other"})
    (row,) = read_rows(open_source(path, column="question"))
    assert row.prompt == "Why?"


def test_parquet_strings_and_messages(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": None}]
    table = pa.table({"text": ["a", None], "messages": [messages, []]})
    pq.write_table(table, tmp_path / "in.bin")
    by_default = list(read_rows(open_source(tmp_path / "in.bin")))
    assert by_default[0].prompt == [messages[0], {"role": "assistant"}]
    named = list(read_rows(open_source(tmp_path / "in.bin", column="text")))
    assert [(row.number, row.prompt) for row in named] == [(1, "a"), (2, None)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"\x1f\n\x7f", "is empty"),
        (b'\n{"text": "no prompt"}\n', 'Line 2: {"text": "no prompt"}'),
        (b"[1, 2]\n", "Line 1: [1, 2]"),
        (b"\x1f\x8b\x08rest", "The gzip data is"),
        (b"abc\0def\n", "a binary file"),
        (gzip.compress(b"abc\0def\n", mtime=0), "a binary file"),
        (gzip.compress(b"one\ntwo\n", mtime=0)[:-4], "cut off"),
        (b"fine\nl\xe4tin\n", "line 2 is not UTF-8"),
        (b"PAR1 but not really", "damaged Parquet"),
    ],
)
def test_what_is_not_understood_is_refused_with_what_was_expected(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "in"
    path.write_bytes(content)
    with pytest.raises(InputNotUnderstood) as caught:
        open_source(path)
    assert message in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputNotUnderstood, match=r"nowhere\.txt cannot be read: No such file"):
        open_source(tmp_path / "nowhere.txt")


@pytest.mark.parametrize(
    ("column", "message"),
    [(None, "neither a column prompt nor messages; it has n, text"), ("n", "of type int64")],
)
def test_a_parquet_file_without_prompts_lists_its_columns(
    tmp_path: Path, column: str | None, message: str
) -> None:
    pq.write_table(pa.table({"n": [1], "text": ["a"]}), tmp_path / "in.parquet")
    with pytest.raises(InputNotUnderstood, match=message):
        open_source(tmp_path / "in.parquet", column=column)


def test_gzip_is_known_by_its_content_and_read_as_a_stream(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(gzip.compress(b"Why?\n\n") + gzip.compress(b"How?\n"))
    source = open_source(tmp_path / "in")
    assert source.kind is Kind.TEXT
    assert [(row.number, row.prompt) for row in read_rows(source)] == [(1, "Why?"), (3, "How?")]


def test_gzip_that_holds_too_much_is_refused_where_the_limit_is_reached(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_bytes(gzip.compress(b"a long prompt\n" * 200_000))
    source = open_source(path, limits=Limits(max_decoded_bytes=2 << 20))
    with pytest.raises(InputNotUnderstood, match="more than 2097152 bytes"):
        list(read_rows(source))


def test_gzip_that_breaks_after_its_start_is_an_error_and_no_end(tmp_path: Path) -> None:
    path = tmp_path / "in"
    lines = b"".join(b"%d %d\n" % (n, n * n * n) for n in range(200_000))
    path.write_bytes(gzip.compress(lines)[:-100])
    rows = read_rows(open_source(path))
    with pytest.raises(InputNotUnderstood, match="cut off"):
        list(rows)


def _repeated(path: Path, text: str, rows: int) -> Path:
    indices = pa.array([0] * rows, pa.int32())
    column = pa.DictionaryArray.from_arrays(indices, pa.array([text]))
    pq.write_table(pa.table({"prompt": column}), path, store_schema=False)
    return path


def test_a_parquet_footer_that_tells_of_too_much_is_refused_before_reading(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["x" * 5_000]}), tmp_path / "in.parquet")
    with pytest.raises(InputNotUnderstood, match="holds more than 4,000 bytes"):
        open_source(tmp_path / "in.parquet", limits=Limits(max_decoded_bytes=4_000))


def test_a_parquet_file_that_unfolds_to_too_much_is_refused_while_reading(tmp_path: Path) -> None:
    path = _repeated(tmp_path / "in.parquet", "x" * 100_000, 10_000)
    assert path.stat().st_size < 1_000_000
    rows = read_rows(open_source(path, limits=Limits(max_decoded_bytes=50_000_000)))
    before = pa.total_allocated_bytes()
    taken = [len(str(row.prompt)) for row in islice(rows, 400)]
    assert taken == [100_000] * 400
    assert pa.total_allocated_bytes() - before < 30_000_000, "a few rows at a time"
    with pytest.raises(InputNotUnderstood, match="holds more than 50,000,000 bytes"):
        list(rows)


def test_a_parquet_file_damaged_behind_its_footer_is_named(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"prompt": [f"prompt {n}" * 9 for n in range(5_000)]}), path)
    data = bytearray(path.read_bytes())
    data[40:4_000] = bytes(3_960)
    path.write_bytes(data)
    with pytest.raises(InputNotUnderstood, match=r"in\.parquet is a damaged Parquet file"):
        list(read_rows(open_source(path)))


def test_repeated_messages_are_read_as_they_were_written(tmp_path: Path) -> None:
    messages = [[{"role": "user", "content": f"say {n % 3}"}] for n in range(300)]
    pq.write_table(pa.table({"messages": messages}), tmp_path / "in.parquet")
    rows = list(read_rows(open_source(tmp_path / "in.parquet")))
    assert [row.prompt for row in rows] == messages
