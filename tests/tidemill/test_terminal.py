"""Nothing that came from outside reaches a terminal as it is: one door, and nobody goes around."""

import ast
import io
import json
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill import terminal
from tidemill.cli.render import print_table

SOURCE = Path(terminal.__file__).parent
# Their lines are made of numbers and of what the door has seen.
OWN_STREAMS = {"terminal.py", "serve/logs.py", "run/files.py", "run/inputs.py", "demo.py"}
TEXT = st.text(st.characters(), max_size=30)


def obeyed(text: str) -> str:
    """The characters of a text that a terminal would act on."""
    return "".join(x for x in text if unicodedata.category(x) in ("Cc", "Cs", "Cf", "Zl", "Zp"))


@given(TEXT)
def test_what_is_printed_holds_nothing_that_a_terminal_obeys(text: str) -> None:
    assert set(obeyed(terminal.printable(text))) <= set("\u200c\u200d")


@settings(max_examples=30)
@given(st.recursive(TEXT, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner)))
def test_json_holds_none_of_it_either_and_is_the_same_document(value: Any) -> None:
    shown = terminal.json_printable(json.dumps(value, ensure_ascii=False, indent=2))
    assert set(obeyed(shown)) <= set("\n\u200c\u200d")
    assert json.loads(shown) == json.loads(json.dumps(value))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, Größe, 日本, 👩\u200d🚀", "plain, Größe, 日本, 👩\u200d🚀"),
        ("\x1b]0;x\x07", "\\x1b]0;x\\x07"),
        ("a\tb\r\nc", "a\\tb\\r\\nc"),
        ("\x9b31m\x7f", "\\x9b31m\\x7f"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("caf\udce9", "caf\\xe9"),
        ("\U000e0041\u2028", "\\U000e0041\\u2028"),
    ],
)
def test_how_it_is_spelled_out(text: str, shown: str) -> None:
    assert terminal.printable(text) == shown


def test_nobody_prints_around_the_door() -> None:
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        name = str(path.relative_to(SOURCE))
        for node in ast.walk(ast.parse(path.read_text())):
            words = ast.unparse(node) if isinstance(node, ast.Attribute | ast.Name) else ""
            around = words in ("print", "typer.echo", "typer.secho", "Console")
            if around or (words in ("sys.stdout", "sys.stderr") and name not in OWN_STREAMS):
                found.append(f"{name}: {words}")
    # Types of arguments, and the table that is made in memory.
    allowed = {"cli/render.py: Console", "run/progress.py: Console", "terminal.py: Console"}
    assert set(found) - allowed - {"demo.py: Console"} == set()


class Screen(io.StringIO):
    """What a terminal of some width would get."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("width", [1, 20, 80, 200])
@settings(max_examples=25)
@given(rows=st.lists(st.tuples(st.text("ab_1", min_size=32, max_size=40), TEXT), max_size=3))
def test_an_id_is_never_cut(width: int, rows: list[tuple[str, str]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        patch.setenv("TERM", "dumb")
        patch.setattr(sys, "stdout", screen := Screen())
        print_table(("id", "name of it"), rows)
    shown = screen.getvalue()
    assert all(batch_id in shown for batch_id, _ in rows)
    assert set(obeyed(shown)) <= set("\n\u200c\u200d")


def test_a_person_who_has_gone_ends_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w", buffering=1) as full:
        monkeypatch.setattr(sys, "stderr", full)
        terminal.say("nobody hears this")
        terminal.console().print("nor this")
        terminal.flush()
    monkeypatch.setattr(sys, "stderr", None)
    terminal.say("nor this")
