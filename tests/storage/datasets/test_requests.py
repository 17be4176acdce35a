"""Plain rows become the lines of a batch, number for number."""

import unicodedata
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from storage.datasets.readers.kinds import open_source
from storage.datasets.readers.rows import read_rows
from storage.datasets.request_lines import RequestOptions, request_lines
from storage.datasets.values.rows import row_number
from storage.datasets.values.sources import Kind, Limits
from storage.datasets.values.unsendable import problem_of
from storage.endpoints import CHAT_COMPLETIONS as CHAT
from storage.endpoints import COMPLETIONS
from storage.errors import InputNotUnderstood
from storage.streams.jsonl import read_lines

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\n\r\0"), max_size=40)


def made(path: Path, options: RequestOptions | None = None) -> list[bytes]:
    lines = request_lines(open_source(path), options or RequestOptions())
    return b"".join(lines).split(b"\n")


def bodies(path: Path, options: RequestOptions) -> list[dict[str, Any]]:
    return [orjson.loads(line)["body"] for line in made(path, options) if line]


def test_options_are_in_every_request(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_text("Why?\n")
    options = RequestOptions("big", "Be brief.", {"max_tokens": 5, "stop": ["."]})
    (line, _) = made(path, options)
    assert orjson.loads(line) == {
        "custom_id": "line-1",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "model": "big",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Why?"},
            ],
            "max_tokens": 5,
            "stop": ["."],
        },
    }


def test_a_system_message_of_the_row_stays(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "own"}, {"role": "user", "content": "Hi"}]
    (tmp_path / "in").write_bytes(orjson.dumps({"messages": messages}))
    (body,) = bodies(tmp_path / "in", RequestOptions(system="other"))
    assert body["messages"] == messages


def test_completions_send_the_prompt_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("Once upon")
    (body,) = bodies(tmp_path / "in", RequestOptions(endpoint=COMPLETIONS))
    assert body == {"prompt": "Once upon"}


def test_line_n_of_the_upload_is_line_n_of_the_input(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b'\n{"prompt": "a"}\n\n{broken\n{"x": 1}\n{"prompt": "b"}')
    lines = made(tmp_path / "in")
    assert (lines[0], lines[2], lines[3]) == (b"", b"", b"{broken")
    ids = {number: orjson.loads(lines[number - 1])["custom_id"] for number in (2, 5, 6)}
    assert ids == {2: "line-2", 5: "line-5", 6: "line-6"}
    assert "messages" not in orjson.loads(lines[4])["body"]


def test_a_field_that_the_output_needs_is_refused_unless_renamed(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b'{"prompt": "a"}\n{"prompt": "b", "answer": "c"}\n')
    source = open_source(tmp_path / "in")
    with pytest.raises(InputNotUnderstood, match="line 2 has a field 'answer' already"):
        list(request_lines(source, RequestOptions(answer_column="answer")))
    assert len(list(request_lines(source, RequestOptions(answer_column="reply")))) == 4
    assert len(list(request_lines(source, RequestOptions()))) == 4


@pytest.mark.parametrize("depth", [300, 900, 980, 990, 997, 1000, 5000])
def test_a_row_that_is_nested_deeply_stops_no_other(tmp_path: Path, depth: int) -> None:
    nested = b"[" * depth + b"]" * depth
    (tmp_path / "in").write_bytes(
        b'{"prompt": "a"}\n{"messages": [{"role": "user", "content": %s}]}\n{"prompt": "b"}'
        % nested
    )
    lines = made(tmp_path / "in")
    assert len(lines) == 4
    assert orjson.loads(lines[2])["custom_id"] == "line-3"


def test_integers_of_any_size_are_sent(tmp_path: Path) -> None:
    message = b'{"role":"user","content":"Hi","id":36893488147419103232}'
    (tmp_path / "in").write_bytes(b'{"messages":[%s]}' % message)
    assert message in made(tmp_path / "in")[0]


def test_a_line_that_is_too_long_or_no_text_is_a_request_without_a_prompt(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"fine\n" + b"x" * 60 + b"\nl\xe4tin\n\nfine\n")
    source = open_source(tmp_path / "in", limits=Limits(max_line_bytes=50))
    lines = b"".join(request_lines(source, RequestOptions())).splitlines()
    sent = [orjson.loads(line) if line else None for line in lines]
    assert [line and line["custom_id"] for line in sent] == [
        *("line-1", "line-2", "line-3"),
        *(None, "line-5"),
    ]
    assert ["messages" in line["body"] for line in sent if line] == [True, False, False, True]
    assert [problem_of(line) for line in sent if line] == [
        None,
        "The line is longer than 50 bytes.",
        "The line is not UTF-8 text: it has the byte 0xE4, which is not UTF-8, at column 2.",
        None,
    ]


@pytest.mark.parametrize(
    ("line", "sent", "fields"),
    [
        (b'{"prompt": "a", "x": NaN}', "a", {"prompt": "a", "x": None}),
        (b'{"prompt": "a", "x": [1e999]}', "a", {"prompt": "a", "x": ["1e999"]}),
        (b'{"prompt": "a", "x": "\\ud83d"}', "a", {"prompt": "a", "x": "\ufffd"}),
        (b'{"prompt": "a", "x\xe4": "\xe4"}', "a", {"prompt": "a", "x\ufffd": "\ufffd"}),
        (b'{"prompt": "a", "x": "\xed\xa0\xbd"}', "a", {"prompt": "a", "x": "\ufffd" * 3}),
        (b'{"prompt": "a", "x": "b\tc"}', "a", {"prompt": "a", "x": "b\tc"}),
        (b'{"prompt": "a\tb", "x": NaN}', "a\tb", {"prompt": "a\tb", "x": None}),
        (b'{"prompt": "a", "x": ' + b"9" * 5_000 + b"}", "a", {"prompt": "a", "x": "9" * 5_000}),
        (b'{"prompt": "\\ud83d\\ude00", "x": NaN}', "\U0001f600", None),
        (b'{"prompt": "cut \\ud83d", "id": 1}', None, {"prompt": "cut \ufffd", "id": 1}),
        (b'{"prompt": "\xe4", "id": 1}', None, {"prompt": "\ufffd", "id": 1}),
        (b'{"messages": [{"role": "user", "content": "a", "x": NaN}]}', None, None),
        (b'{"messages": [{"role": "user", "content": "a", "x": 1e999}]}', None, None),
        (b'{"prompt": ' + b"9" * 5_000 + b', "id": 1}', None, {"prompt": "9" * 5_000, "id": 1}),
        (b'{"messages": [{"role": "user", "content": "\\udc00"}]}', None, None),
    ],
)
def test_a_bad_value_costs_its_row_only_where_it_is_sent(
    tmp_path: Path, line: bytes, sent: str | None, fields: dict[str, Any] | None
) -> None:
    (tmp_path / "in").write_bytes(line)
    source = open_source(tmp_path / "in")
    (row,) = read_rows(source)
    (upload, _) = made(tmp_path / "in")
    if sent is None:
        assert upload == line, "the service says what is wrong"
    else:
        assert orjson.loads(upload)["body"]["messages"][0]["content"] == sent
    if fields is not None:
        assert msgspec.json.decode(msgspec.json.encode(row.fields)) == fields


@pytest.mark.parametrize(
    ("row", "endpoint", "problem"),
    [
        (
            b'{"text": "a", "n": 1}',
            CHAT,
            "neither a field 'prompt' nor 'messages'; it has 'text', 'n'",
        ),
        (b"{}", CHAT, "it has none at all"),
        (b'{"prompt": 5}', CHAT, "The field 'prompt' is a number"),
        (b'{"prompt": null}', CHAT, "The field 'prompt' is null"),
        (b'{"prompt": true, "messages": null}', CHAT, "The field 'prompt' is a boolean"),
        (b'{"prompt": {"a": 1}}', CHAT, "The field 'prompt' is an object"),
        (b'{"messages": []}', CHAT, "The field 'messages' is an empty list"),
        (b'{"messages": [{"role": "user", "content": "a"}]}', COMPLETIONS, "takes a text"),
    ],
)
def test_a_row_without_a_prompt_carries_the_reason(
    tmp_path: Path, row: bytes, endpoint: str, problem: str
) -> None:
    (tmp_path / "in").write_bytes(b'{"prompt": "fine"}\n' + row)
    lines = made(tmp_path / "in", RequestOptions(endpoint=endpoint))
    request = orjson.loads(lines[1])
    assert (request["custom_id"], request["body"]) == ("line-2", {})
    assert problem in (problem_of(request) or "")
    assert problem_of(orjson.loads(lines[0])) is None


@pytest.mark.parametrize(
    ("given_id", "row"),
    [
        ("line-12", 12),
        ("row-1", 1),
        ("row-x", None),
        ("other-1", None),
        ("line-" + "9" * 5000, None),
        ("line-\N{ARABIC-INDIC DIGIT ONE}", None),
    ],
)
def test_which_row_a_custom_id_belongs_to(given_id: str, row: int | None) -> None:
    assert row_number(given_id) == row


def is_content(line: str) -> bool:
    """Whether a character is neither white space nor a control character."""
    return any(not char.isspace() and unicodedata.category(char) != "Cc" for char in line)


@given(st.lists(TEXT, min_size=1, max_size=8))
@example(["", "\x1f"])
@example(["", "\x7f\u3000", "\u200b"])
def test_every_prompt_of_a_text_file_arrives(
    tmp_path_factory: pytest.TempPathFactory, prompts: list[str]
) -> None:
    prompts[0] = "First " + prompts[0]
    path = tmp_path_factory.mktemp("text") / "in"
    path.write_text("\n".join(prompts), encoding="utf-8", newline="")
    sent = {
        row_number(request["custom_id"]): request["body"]["messages"][0]["content"]
        for line in made(path)
        if line
        for request in [orjson.loads(line)]
    }
    assert sent == {n: prompt for n, prompt in enumerate(prompts, 1) if is_content(prompt)}


@pytest.mark.parametrize("content", [b"Why?\n\x1f\nHow?", b'{"prompt":"a"}\n\x1f\n{"prompt":"b"}'])
def test_a_line_of_a_control_character_alone_is_not_sent(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "in").write_bytes(content)
    lines = made(tmp_path / "in")
    assert lines[1] == b""
    assert [orjson.loads(lines[n])["custom_id"] for n in (0, 2)] == ["line-1", "line-3"]


def test_a_line_of_a_control_character_among_whole_requests_is_passed_over(tmp_path: Path) -> None:
    request = b'{"custom_id":"a","method":"POST","url":"/v1/completions","body":{}}'
    path = tmp_path / "in"
    path.write_bytes(request + b"\n\x1f\n" + request)
    assert open_source(path).kind is Kind.REQUESTS
    with path.open("rb") as file:
        lines = list(read_lines(file, max_line_bytes=1_000))
    assert [(line.number, line.data) for line in lines] == [(1, request), (3, request)]
