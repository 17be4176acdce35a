"""The one door to the terminal: every command prints through here.

What came from outside (a server, a file, a name) could hold escape sequences that a terminal obeys,
or newlines that forge rows of a table. It is printed with those characters spelled out. Data goes
to standard output, whatever is said to a person to standard error.
"""

import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from types import TracebackType
from typing import IO, TYPE_CHECKING, TextIO, cast

from tidemill.errors import OutputNotWritten

if TYPE_CHECKING:
    from rich.console import Console

_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}
# They join letters of some scripts and parts of emoji, and change nothing else.
_JOINERS = "\u200c\u200d"


def printable(text: str, *, keep: str = "") -> str:
    """``text`` with every character spelled out that a terminal would obey and not show.

    These are control characters (C0, C1, DEL), whatever turns the direction of writing or has no
    width, separators of lines and paragraphs, and halves of surrogate pairs. Bytes of a file name
    that are not UTF-8 are shown as ``\\xe9``.

    Args:
        keep: characters that stay as they are.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(x if x in keep else _spelled(x) for x in text)


def json_printable(text: str) -> str:
    """A JSON document with the same characters escaped in its strings; the same value.

    Newlines and tabs stand between values alone, as JSON allows, and are left.
    """
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return "".join(x if x in "\n\t" or not _is_unsafe(x) else _json_escape(x) for x in text)


def put(line: str) -> None:
    """One line of data.

    Raises:
        BrokenPipeError: whoever read standard output has gone.
        OutputNotWritten: standard output cannot be written.
    """
    _write(printable(line) + "\n")


def put_row(cells: Iterable[str]) -> None:
    """One line of cells, with tabs between them; raises as `put`."""
    _write("\t".join(map(printable, cells)) + "\n")


def put_json(document: str) -> None:
    """A JSON document; raises as `put`."""
    _write(json_printable(document) + "\n")


def put_text(text: str) -> None:
    """Lines that were made here out of printable parts; raises as `put`."""
    _write(text)


def say(text: str) -> None:
    """One line to a person. Where nobody listens any more it is lost, and the work goes on."""
    with suppress(OSError, ValueError):
        if sys.stderr is not None:
            sys.stderr.write(printable(text) + "\n")
            sys.stderr.flush()


def say_error(text: str) -> None:
    """One line that begins with ``Error:``, in red on a terminal."""
    with suppress(OSError, ValueError):
        if sys.stderr is not None:
            coloured = sys.stderr.isatty() and _has_colours()
            label = "\033[31mError:\033[0m" if coloured else "Error:"
            sys.stderr.write(f"{label} {printable(text)}\n")
            sys.stderr.flush()


def say_traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """What `sys.excepthook` is: a traceback, for what nobody expected."""
    import traceback

    for piece in traceback.format_exception(kind, error, trace):
        for line in piece.splitlines():
            say(line)


def flush() -> None:
    """Write what standard output still holds; raises as `put`, and throws it away then."""
    if sys.stdout is None:
        return
    try:
        with _output():
            sys.stdout.flush()
    finally:
        _settle(sys.stdout)
        _settle(sys.stderr)


def is_terminal() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def console() -> "Console":
    """A console for what is said to a person; text for it goes through `printable` first."""
    from rich.console import Console

    return Console(file=cast("IO[str]", _Forgiving()), highlight=False, markup=False)


def prepare_streams() -> None:
    """Spell out what standard output's encoding lacks, in place of an error."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


class _Forgiving:
    """Standard error for a console: a terminal that was closed does not end the work.

    The stream is the one of now: a live display puts itself in its place, and writes to this.
    """

    def __init__(self) -> None:
        self._stream = sys.stderr

    @property
    def encoding(self) -> str:
        return getattr(self._stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            if self._stream is not None:
                return self._stream.write(text)
        return 0

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            if self._stream is not None:
                self._stream.flush()

    def isatty(self) -> bool:
        with suppress(ValueError):
            return self._stream is not None and self._stream.isatty()
        return False

    def fileno(self) -> int:
        return self._stream.fileno()


def _has_colours() -> bool:
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") not in ("dumb", "unknown")


@lru_cache(4096)
def _is_unsafe(character: str) -> bool:
    kind = unicodedata.category(character)
    return kind in ("Cc", "Cs", "Zl", "Zp") or (kind == "Cf" and character not in _JOINERS)


def _spelled(character: str) -> str:
    if not _is_unsafe(character):
        return character
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:
        # Python's stand-in for a byte that is not UTF-8.
        return f"\\x{number - 0xDC00:02x}"
    short = f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
    return _SHORT.get(character, short if number < 0x10000 else f"\\U{number:08x}")


def _json_escape(character: str) -> str:
    number = ord(character)
    if number < 0x10000:
        return f"\\u{number:04x}"
    number -= 0x10000
    return f"\\u{0xD800 + (number >> 10):04x}\\u{0xDC00 + (number & 0x3FF):04x}"


def _settle(stream: TextIO | None) -> None:
    """Throw away what a stream cannot write: Python would fail on it once more at its end."""
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def _write(text: str) -> None:
    with _output() as stream:
        stream.write(text)


@contextmanager
def _output() -> Iterator[TextIO]:
    try:
        if sys.stdout is None:
            raise OutputNotWritten("Standard output is closed.")
        yield sys.stdout
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputNotWritten(f"Standard output cannot be written: {error.strerror}.") from error
