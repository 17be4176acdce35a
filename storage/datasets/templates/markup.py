"""From a text with Jinja's markup to its syntax tree, and the errors on that way.

Only Jinja's parser is used. What it finds is interpreted here and not compiled to Python: so a
template can reach nothing but values, and every operation is within bounds.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from typing import Final

import jinja2
from jinja2 import nodes
from jinja2.lexer import TOKEN_DATA

from storage.datasets.readers.json_lines import is_clean
from storage.errors import TemplateError

PARAM: Final = "tidemill.template"
_MARKS: Final = ("{{", "{%", "{#")
_MAX_DEPTH: Final = 100
SHOWN_NAME: Final = 60
_SHOWN_LINE, _SHOWN_REASON = 80, 400
# Names are compared by pairs, which takes long where there are many, or long ones.
_COMPARED_NAMES, _COMPARED_CHARACTERS, _OTHER_CHARACTERS = 256, 40, 3

# Statements take their own line with them, as in chat templates; all other text stays as it is.
_ENVIRONMENT: Final = jinja2.Environment(
    trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
)


def has_markup(text: str) -> bool:
    """Whether a text is more than text."""
    return any(mark in text for mark in _MARKS)


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a template something stands, such as ``.messages[0].content``."""

    path: str = ""

    def inside(self, name: str | int) -> "Place":
        """An entry of what stands here."""
        if isinstance(name, str) and name.isidentifier() and len(name) <= SHOWN_NAME:
            return Place(f"{self.path}.{name}")
        shown = name if isinstance(name, int) else repr(name[:SHOWN_NAME])
        return Place(f"{self.path}[{shown}]")

    @property
    def shown(self) -> str:
        """For the middle of a sentence: empty, or `` at messages[0].content``."""
        return f" at {self.path.removeprefix('.')}" if self.path else ""

    def error(self, what: str, line: int | None = None) -> TemplateError:
        """The error of what is wrong here."""
        where = self.shown + (f", line {line}" if line is not None else "")
        return TemplateError(f"The template is wrong{where}: {what}", PARAM + self.path)


def count_symbols(source: str, place: Place, most: int) -> int:
    """How many symbols the expressions and statements of a text have, or a number above ``most``.

    Raises:
        TemplateError: something in it is no symbol.
    """
    with _faults(source, place):
        symbols = (kind for _, kind, _ in _ENVIRONMENT.lex(source) if kind != TOKEN_DATA)
        return sum(1 for _ in islice(symbols, most + 1))


def parse_markup(source: str, place: Place) -> nodes.Template:
    """The syntax tree of a text with markup.

    Raises:
        TemplateError: it is not Jinja, or nested too deeply.
    """
    with _faults(source, place):
        tree = _ENVIRONMENT.parse(source)
    check_depth(tree, place)
    return tree


@contextmanager
def _faults(source: str, place: Place) -> Iterator[None]:
    """Raise what Jinja raises as a `TemplateError`."""
    try:
        yield
    except jinja2.TemplateSyntaxError as error:
        lines = source.splitlines()
        line = lines[error.lineno - 1].strip() if 0 < error.lineno <= len(lines) else ""
        shown = f" (in {line[:_SHOWN_LINE]!r})" if line else ""
        reason = (error.message or "it is not valid Jinja").rstrip(".")[:_SHOWN_REASON]
        raise place.error(f"{reason}{shown}.", error.lineno) from None
    except RecursionError:
        raise place.error("it is nested too deeply.") from None
    except (ValueError, OverflowError):
        raise place.error("it has a number that is out of range.") from None


def check_depth(tree: nodes.Node, place: Place) -> None:
    """Check that a tree can be walked by recursion.

    Raises:
        TemplateError: it is nested too deeply.
    """
    level: list[nodes.Node] = [tree]
    for _ in range(_MAX_DEPTH):
        level = [child for node in level for child in node.iter_child_nodes()]
        if not level:
            return
    raise place.error(f"it is nested more than {_MAX_DEPTH} deep.")


def check_text(text: str, place: Place) -> None:
    """Check that a text can be written.

    Raises:
        TemplateError: it has halves of surrogate pairs.
    """
    if not is_clean(text):
        raise place.error("it has a text that is not Unicode: half of a surrogate pair.")


def nearest(name: str, names: Collection[str]) -> str | None:
    """The name that was probably meant, if there is one."""
    folded = name.casefold()
    if same := next((each for each in names if each.casefold() == folded), None):
        return same
    if len(name) > _COMPARED_CHARACTERS:
        return None
    alike = (each for each in names if abs(len(each) - len(name)) <= _OTHER_CHARACTERS)
    close = get_close_matches(name, islice(alike, _COMPARED_NAMES), n=1)
    return close[0] if close else None


def did_you_mean(name: str, names: Collection[str]) -> str:
    """`` Did you mean 'body'?``, or nothing."""
    found = nearest(name, names)
    return f" Did you mean {found!r}?" if found is not None else ""
