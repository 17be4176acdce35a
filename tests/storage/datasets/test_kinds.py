"""Requests, rows, tables and text are told apart, and the reason is said."""

import gzip
from pathlib import Path
from typing import Any

import orjson
import pytest

from storage.datasets.readers.kinds import open_source
from storage.datasets.readers.rows import read_rows
from storage.datasets.values.sources import Kind, Source
from storage.errors import InputNotUnderstood

REQUEST: dict[str, Any] = {
    "custom_id": "a",
    "method": "POST",
    "url": "/v1/completions",
    "body": {"prompt": "Hi"},
}


def opened(folder: Path, name: str, *lines: object, **options: Any) -> Source:
    path = folder / name
    path.write_bytes(
        b"".join((x if isinstance(x, bytes) else orjson.dumps(x)) + b"\n" for x in lines)
    )
    return open_source(path, **options)


def prompts(source: Source) -> list[Any]:
    return [row.prompt for row in read_rows(source)]


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"url": "https://example.org", "body": "It crashes.", "prompt": "Sum up."}, Kind.JSONL),
        ({"url": "u", "method": "GET", "custom_id": 1, "prompt": "Hi"}, Kind.JSONL),
        ({"custom_id": "a", "body": "a text", "prompt": "Hi"}, Kind.JSONL),
        ({"custom_id": "a", "body": {}}, Kind.REQUESTS),
        ({"custom_id": "a", "body": {}, "prompt": "Hi"}, Kind.REQUESTS),
    ],
)
def test_a_request_has_a_custom_id_and_an_object_as_its_body(
    tmp_path: Path, row: dict[str, Any], kind: Kind
) -> None:
    assert opened(tmp_path, "in.jsonl", row).kind is kind
    for asked in (Kind.JSONL, Kind.REQUESTS, Kind.TEXT):
        if "prompt" in row:
            assert opened(tmp_path, "in.jsonl", row, kind=asked).kind is asked


@pytest.mark.parametrize("name", ["in.txt", "in", "in.md"])
@pytest.mark.parametrize(
    "first",
    [
        b"{name} is a common first name. True?",
        b"[1] Name a colour.",
        b"[",
        b"{",
        b'{"quoted": is no JSON',
        b"42",
        b"id,question",
        b"Write a prompt, please",
        b" prompt ",
    ],
)
def test_text_may_begin_with_anything(tmp_path: Path, name: str, first: bytes) -> None:
    source = opened(tmp_path, name, first, b"Name a river.")
    assert source.kind is Kind.TEXT
    assert prompts(source) == [first.decode(), "Name a river."]


def test_the_first_line_that_tells_decides_however_late_it_comes(tmp_path: Path) -> None:
    late = [{"text": "x"}] * 3_000
    source = opened(tmp_path, "in", *late, {"prompt": "Hi"}, REQUEST)
    assert (source.kind, source.reason) == (Kind.JSONL, "line 3001 has a field prompt")
    source = opened(tmp_path, "in", *late, REQUEST, {"prompt": "Hi"})
    assert (source.kind, source.endpoint) == (Kind.REQUESTS, "/v1/completions")


def test_lines_may_be_broken_where_the_name_says_json_lines(tmp_path: Path) -> None:
    source = opened(tmp_path, "in.jsonl", b"nonsense", b'{"prompt": "cut', {"prompt": "Hi"})
    assert source.kind is Kind.JSONL
    assert prompts(source) == [None, None, "Hi"]


def test_the_field_that_the_user_names_makes_a_row_of_what_looks_like_a_request(
    tmp_path: Path,
) -> None:
    row = {"custom_id": "a", "body": {"lang": "en"}, "question": "Why?"}
    source = opened(tmp_path, "in.jsonl", row, column="question")
    assert (source.kind, prompts(source)) == (Kind.JSONL, ["Why?"])
    with pytest.raises(InputNotUnderstood, match="--input-format jsonl"):
        opened(tmp_path, "in.jsonl", row, column="answer")


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("/chat/completions", "/v1/chat/completions"),
        ("/completions", "/v1/completions"),
        ("/v1/embeddings", "/v1/embeddings"),
        (7, "/v1/chat/completions"),
    ],
)
def test_the_endpoint_of_requests(tmp_path: Path, url: object, endpoint: str) -> None:
    assert opened(tmp_path, "in", {**REQUEST, "url": url}).endpoint == endpoint
    assert opened(tmp_path, "in", {**REQUEST, "url": url}, REQUEST).endpoint in (
        endpoint,
        "/v1/completions",
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "in.jsonl",
            b'{"text": "a"}\n{"id": 1}',
            "neither a field 'prompt' nor 'messages'; it has",
        ),
        ("in.jsonl", b'{"prompt": 5}', "The field 'prompt' is a number"),
        ("in.jsonl", b'{"prompt": null}', "The field 'prompt' is null"),
        ("in.jsonl", b'{"messages": []}', "The field 'messages' is an empty list"),
        ("in.jsonl", b'{"messages": ["a"]}', "a list of other things than messages"),
        ("in.jsonl", b"hello\n", "line 1 is not JSON: the word hello at column 1"),
        ("in.jsonl", b'{"prompt": "a",}\n', "line 1 is not JSON: a trailing comma at column 15"),
        ("in", b'[{"prompt": "a"}, {"prompt": "b"}]', "jq -c '.[]' FILE > lines.jsonl"),
        ("in.txt", b'[{"prompt": "a"}, {"prompt": "b"}]', "jq -c '.[]' FILE > lines.jsonl"),
        ("in.json", b'[\n {\n  "prompt": "a"\n }\n]', "jq -c '.[]' FILE > lines.jsonl"),
        ("in", b'[\n{"prompt": "a"},\n{"prompt": "b"}\n]\n', "jq -c '.[]' FILE > lines.jsonl"),
        ("in", b'{\n "prompt": "a"\n}\n{\n "prompt": "b"\n}\n', "jq -c . FILE > lines.jsonl"),
        (
            "in",
            b"[\n" + b'{"prompt": "%s"},\n' % (b"a" * 999) * 1_100 + b"]",
            "jq -c '.[]' FILE > lines.jsonl",
        ),
        ("in", b"{'prompt': 'Name a colour.'}", "dicts as Python prints them, with single quotes"),
        ("in", b'"Name a colour."\n"Name a river."', "line 1 is a string, not an object"),
        ("in.jsonl", b"42\n", "line 1 is a number, not an object"),
        ("in", b'{"custom_id": "1", "params": {}}', "Anthropic's batches"),
        ("in", b'{"recordId": "1", "modelInput": {}}', "Bedrock's batches"),
        ("in", b'{"method": "POST", "url": "/v1", "body": {}}', "A request needs a custom_id"),
        ("in", b'{"custom_id": "a", "url": "/v1", "body": []}', "A request needs a"),
        ("in.csv", b"id,question\n1,Why?\n", "has neither a column prompt nor messages; it has id"),
        ("in.tsv", b"id\tquestion\n", "it has id, question. Name the prompts' column"),
        ("in.csv", b"prompt,id,id\n", "two columns of the name 'id'"),
        ("in.csv", b'"prompt\n', "no header that can be read. A quote is opened"),
        ("in.csv", b"id,prompt\n1,caf\xe9\n", "line 2: The column 'prompt' is not UTF-8"),
        ("in", "abc".encode("utf-16-le"), "UTF-16LE without a byte-order mark"),
    ],
)
def test_a_refusal_says_what_is_wrong(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputNotUnderstood) as caught:
        open_source(path)
    assert message in str(caught.value)
    if b"\0" not in content and b"\xe9" not in content:
        assert prompts(open_source(path, kind=Kind.TEXT))


@pytest.mark.parametrize(
    ("name", "content", "options", "reason"),
    [
        ("in.csv", b"id,prompt\n1,Hi\n", {}, "CSV: by its name, column prompt"),
        ("in.CSV", b"id;prompt\n1;Hi\n", {}, "CSV: by its name, column prompt"),
        ("in.tab", b"id\tprompt\n1\tHi\n", {}, "TSV: by its name, column prompt"),
        ("in", b"\xef\xbb\xbfid,prompt\n1,Hi\n", {}, "CSV: by its header, column prompt"),
        ("in", b"id\tmessages\n1\tHi\n", {}, "TSV: by its header, column messages"),
        ("in", b"id, prompt\n1,Hi\n", {}, "CSV: by its header, column prompt"),
        ("in", b" prompt ;id\r\nHi;1\r\n", {}, "CSV: by its header, column prompt"),
        ("in", b'id," prompt "\n1,Hi\n', {}, "CSV: by its header, column prompt"),
        ("in", b"id \t q \n1\tHi\n", {"column": "q"}, "TSV: by its header, column q"),
        ("in", b"id, q\n1,Hi\n", {"column": "q"}, "CSV: by its header, column q"),
        ("in", b"id,\n1,Hi\n", {"column": "column_2"}, "CSV: by its header, column column_2"),
        (
            "in.txt",
            b"question\nHi\n",
            {"column": "question"},
            "CSV: by its header, column question",
        ),
        ("in", b"prompt\nHi\n", {"kind": Kind.CSV}, "CSV: by --input-format, column prompt"),
        ("in.csv", b'{"prompt": "Hi"}\n', {}, "JSON lines: line 1 has a field prompt"),
        ("in.csv", b"Hi\n", {"kind": Kind.TEXT}, "text, one prompt a line: by --input-format"),
        ("in", b"Hi\n", {}, "text, one prompt a line: its first line is no JSON object"),
        ("in", orjson.dumps(REQUEST), {}, "batch requests: line 1 has a custom_id and a body"),
        ("in", b'{"q": "Hi"}', {"column": "q"}, "JSON lines: line 1 has a field q"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_what_a_file_is_read_as_is_said_with_the_reason(
    tmp_path: Path, name: str, content: bytes, options: dict[str, Any], reason: str, packed: bool
) -> None:
    path = tmp_path / (name + ".gz" if packed else name)
    path.write_bytes(gzip.compress(content) if packed else content)
    source = open_source(path, **options)
    assert source.described == f"Reading {path.name} as {reason}"
    if source.kind is not Kind.REQUESTS:
        assert prompts(source) == ["Hi"]


def test_a_name_that_is_not_utf8_is_shown_as_text(tmp_path: Path) -> None:
    path = Path(str(tmp_path) + "/caf\udce9.txt")
    path.write_text("Why?\n")
    source = open_source(path)
    assert (source.name, prompts(source)) == ("caf\ufffd.txt", ["Why?"])
