"""The template that a command is given."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage.endpoints import CHAT_COMPLETIONS as CHAT
from storage.endpoints import COMPLETIONS
from tidemill.cli.templates import template_of
from tidemill.errors import InputError, UsageError

Command = Callable[..., Any]

ROW = {"body": "the sea"}


def prompt_of(text: str | None, file: Path | None = None) -> str:
    template = template_of(text, file, column=None, endpoint=CHAT)
    assert template is not None
    content = template.body(ROW, CHAT)["messages"][-1]["content"]
    assert isinstance(content, str)
    return content


def test_a_text_is_a_text_whatever_it_looks_like() -> None:
    assert prompt_of("On {{ body }}") == "On the sea"
    assert prompt_of("[{{ body }}]") == "[the sea]"
    assert template_of(None, None, column="x", endpoint=CHAT) is None


@pytest.mark.parametrize(
    ("name", "content", "prompt"),
    [
        ("t.txt", "On {{ body }}\n", "On the sea"),
        ("t.txt", "\ufeff{{ body }}.\n\n", "the sea.\n"),
        ("t.j2", "{% if body %}\nOn {{ body }}\n{% endif %}\n", "On the sea\n"),
        ("t.json", '[{"role": "user", "content": "On {{ body }}"}]', "On the sea"),
        ("t", '{"prompt": "On {{ body }}"}', "On the sea"),
        ("t", '"On {{ body }}"', '"On the sea"'),
    ],
)
def test_a_file_holds_a_text_or_json(tmp_path: Path, name: str, content: str, prompt: str) -> None:
    (tmp_path / name).write_text(content)
    assert prompt_of(None, tmp_path / name) == prompt


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('{"prompt": "x"')
    (tmp_path / "bad.txt").write_bytes(b"\xff")
    for name, says in (("no", "cannot be read"), ("bad.json", "is not JSON"), ("bad.txt", "UTF-8")):
        with pytest.raises(InputError, match=says):
            template_of(None, tmp_path / name, column=None, endpoint=CHAT)


@pytest.mark.parametrize(
    ("text", "column", "endpoint", "says"),
    [
        ("{{ x", None, CHAT, "line 1"),
        ("{{ x }}", "x", CHAT, "leave out --column"),
        ("", None, CHAT, "it is empty"),
        ("\udcff{{ x }}", None, CHAT, "not Unicode"),
    ],
)
def test_a_wrong_template_is_wrong_usage(
    text: str, column: str | None, endpoint: str, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        template_of(text, None, column=column, endpoint=endpoint)


def test_what_does_not_go_together_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('[{"role": "user", "content": "x"}]')
    with pytest.raises(UsageError, match="choose one"):
        template_of("x", tmp_path / "t.json", column=None, endpoint=CHAT)
    with pytest.raises(UsageError, match="write a text"):
        template_of(None, tmp_path / "t.json", column=None, endpoint=COMPLETIONS)


def test_an_unknown_column_is_one_line_before_anything_starts(
    command: Command, tmp_path: Path
) -> None:
    (tmp_path / "in.csv").write_text("id,body\n1,the sea\n")
    done = command("submit", "in.csv", "--template", "On {{ boddy }}")
    assert done.code == 2
    assert "'boddy'. Did you mean 'body'? The columns are 'id', 'body'." in done.err
    assert len(done.err.splitlines()) == 1
