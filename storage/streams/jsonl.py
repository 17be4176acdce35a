"""Lines of a stream in bounded memory, whatever is in it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from storage.errors import LineTooLong
from storage.streams.lines import is_blank_bytes

READ_BYTES = 1 << 18
_BOM = b"\xef\xbb\xbf"
_MARKS = re.compile(b"(?:%s)++" % _BOM)


@dataclass(frozen=True, slots=True)
class Line:
    """One line that is not blank.

    Attributes:
        number: its place in the stream, from 1, blank lines counted.
        data: its bytes without the line's end; empty where ``error`` is set.
        error: set where the line is longer than the limit.
    """

    number: int
    data: bytes
    error: LineTooLong | None = None


def read_lines(stream: BinaryIO, *, max_line_bytes: int) -> Iterator[Line]:
    """The lines of ``stream``, which end in LF or CRLF, the last one perhaps in nothing.

    A byte-order mark at the start of a line is dropped, as files with one may have been joined, and
    blank lines are passed over. Of a line longer than ``max_line_bytes`` nothing is kept, so memory
    stays at about that size.
    """
    for number, data in enumerate(raw_lines(stream, max_line_bytes), start=1):
        if data is None:
            yield _too_long(number, max_line_bytes)
            continue
        data = without_mark(data).removesuffix(b"\r")
        if len(data) > max_line_bytes:
            yield _too_long(number, max_line_bytes)
        elif not is_blank_bytes(data):
            yield Line(number, data)


def _too_long(number: int, limit: int) -> Line:
    return Line(number, b"", LineTooLong(f"The line is longer than {limit} bytes."))


def without_mark(line: bytes) -> bytes:
    """A line without the byte-order marks at its start."""
    if not line.startswith(_BOM):
        return line
    marks = _MARKS.match(line)
    return line[marks.end() :] if marks else line


def raw_lines(stream: BinaryIO, max_line_bytes: int) -> Iterator[bytes | None]:
    """All lines without their LF, blank ones too; ``None`` for one that is certainly too long."""
    limit = max_line_bytes + len(_BOM) + len(b"\r")
    pieces: list[bytes] = []  # the beginning of a line that is not at its end yet
    held = 0
    while data := stream.read(READ_BYTES):
        *ended, rest = data.split(b"\n")
        for line in ended:
            if not pieces:
                yield line
                continue
            yield b"".join((*pieces, line)) if held + len(line) <= limit else None
            pieces, held = [], 0
        held += len(rest)
        if held > limit:
            pieces = [b""]
        elif rest:
            pieces.append(rest)
    if held:
        yield b"".join(pieces) if held <= limit else None
