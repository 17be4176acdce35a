"""Lines of a stream in bounded memory, whatever is in it."""

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from storage.errors import LineTooLong, TooManyLines
from storage.streams.lines import end_of_blank_lines, is_blank_bytes

READ_BYTES = 1 << 18
CROWDED_BYTES = 16  # lines of so few bytes are looked through for runs of blank ones
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


def read_lines(
    stream: BinaryIO,
    *,
    max_line_bytes: int,
    max_lines: int = sys.maxsize,
    heartbeat: Callable[[], None] = lambda: None,
) -> Iterator[Line]:
    """The lines of ``stream``, which end in LF or CRLF, the last one perhaps in nothing.

    A byte-order mark at the start of a line is dropped, as files with one may have been joined, and
    blank lines are passed over. Of a line longer than ``max_line_bytes`` nothing is kept, so memory
    stays at about that size.

    Args:
        heartbeat: called for every chunk that is read, also where it holds blank lines alone; it
            raises to end the reading.

    Raises:
        TooManyLines: there are more than ``max_lines``, blank ones included.
    """
    chunks = _chunks(stream, heartbeat)
    for number, data in _raw_lines(chunks, max_line_bytes + 2 + len(_BOM)):
        if number > max_lines:
            raise TooManyLines(f"There are more than {max_lines} lines.")
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


def _chunks(stream: BinaryIO, heartbeat: Callable[[], None]) -> Iterator[bytes]:
    while data := stream.read(READ_BYTES):
        heartbeat()
        yield data


def _raw_lines(chunks: Iterable[bytes], limit: int) -> Iterator[tuple[int, bytes | None]]:
    """Lines without their LF, by number; ``None`` for one of more than ``limit`` bytes.

    Of blank lines in a row some may be left out, but not the last one.
    """
    pieces: list[bytes] = []  # the beginning of a line that is not at its end yet
    held = 0
    number = 0
    for data in chunks:
        if held:
            head, end, data = data.partition(b"\n")
            held += len(head)
            pieces = [*pieces, head] if held <= limit else [b""]
            if not end:
                continue
            number += 1
            yield number, b"".join(pieces) if held <= limit else None
        if limit > READ_BYTES and data.count(b"\n") * CROWDED_BYTES > len(data):
            for count, line in _past_blank_lines(data):
                number += count
                yield number, line
            rest = data[data.rfind(b"\n") + 1 :]
        else:
            *ended, rest = data.split(b"\n")
            for line in ended:
                number += 1
                yield number, line
        held = len(rest)
        pieces = [rest if held <= limit else b""]
    if held:
        yield number + 1, b"".join(pieces) if held <= limit else None


def _past_blank_lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The lines that end in a chunk, each with their count since the last one.

    Where millions of blank lines follow each other, one stands for all of them.
    """
    at, last = 0, data.rfind(b"\n")
    while at <= last:
        end = end_of_blank_lines(data, at)
        if end > at:
            yield data.count(b"\n", at, end), b""
            at = end
            continue
        end = data.find(b"\n", at)
        yield 1, data[at:end]
        at = end + 1
