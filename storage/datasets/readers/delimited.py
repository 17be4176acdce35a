"""CSV and TSV: a header, and below it records whose fields have a delimiter between them.

A row's number is that of the line on which its record begins. A record that cannot be read is a
row with a problem, and reading goes on with the line after its first: so a quote that is never
closed costs its own row and no other.
"""

import csv
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO

from storage.datasets.readers.json_lines import clean_text, is_clean
from storage.datasets.values.rows import NO_MESSAGES, PROMPT_FIELDS, Row, text_prompt
from storage.datasets.values.sources import Kind, Source
from storage.errors import InputNotUnderstood
from storage.streams.jsonl import READ_BYTES, without_mark
from storage.streams.lines import is_blank, is_blank_bytes

NO_PROMPT_COLUMN = "neither a column prompt nor messages"
NOT_UTF8 = "is not UTF-8 text; of older Windows programs: iconv -f WINDOWS-1252 -t UTF-8"
MOST_LINES = 100_000  # of one record
# Our own limit, in bytes of a record, is the one that counts.
csv.field_size_limit(2**31 - 1)


@dataclass(frozen=True, slots=True)
class _Record:
    """The fields of a record that begins on line ``number``, or why it cannot be read."""

    number: int
    values: list[str]
    problem: str | None = None


def read_delimited_rows(stream: BinaryIO, source: Source) -> Iterator[Row]:
    """The rows below the header, blank lines passed over.

    Raises:
        InputNotUnderstood: there is no header, or it lacks the prompts' column.
    """
    records = _records(stream, source.delimiter, source.limits.max_line_bytes)
    names = _names(source, records)
    column = prompt_column(source, names)
    for record in records:
        yield _row(record, names, column)


def read_delimited_records(
    stream: BinaryIO, source: Source, columns: Collection[str]
) -> Iterator[Row]:
    """The rows below the header with the values of these columns, as far as there are such.

    Raises:
        InputNotUnderstood: there is no header, or two columns have one name.
    """
    records = _records(stream, source.delimiter, source.limits.max_line_bytes)
    names = _names(source, records)
    wanted = [(at, name) for at, name in enumerate(names) if name in columns]
    for record in records:
        problem = _fault(record, names)
        fields = {} if problem else {name: record.values[at] for at, name in wanted}
        bad = next((name for name, text in fields.items() if not is_clean(text)), None)
        if bad is not None:
            problem = f"The column {bad!r} {NOT_UTF8}"
            fields = {name: clean_text(text) for name, text in fields.items()}
        yield Row(record.number, None, fields, problem=problem)


def read_header(stream: BinaryIO, source: Source) -> list[str]:
    """The columns' names.

    Raises:
        InputNotUnderstood: there is no header, or two columns have one name.
    """
    return _names(source, _records(stream, source.delimiter, source.limits.max_line_bytes))


def delimiter_of(
    kind: Kind, head: bytes, source: Source, columns: Collection[str] | None = None
) -> str:
    """A tab for TSV; for CSV what cuts the header best, a comma before others.

    Best are names with most of those that are wanted, then those without stray quotes, then many.

    Args:
        head: the file's first lines.
        columns: the names that are wanted; `None` is that of the prompts.
    """
    if kind is Kind.TSV:
        return "\t"
    wanted = _wanted(source) if columns is None else columns

    def fit(delimiter: str) -> tuple[int, bool, int]:
        names = column_names(header_fields(head, delimiter, source))
        found = sum(name in names for name in wanted)
        return found, not any('"' in name for name in names), len(names)

    return max(",;\t", key=fit)


def header_fields(head: bytes, delimiter: str, source: Source) -> list[str]:
    """The fields of a file's first record, of however many lines; none if it cannot be read."""
    record = next(_records(BytesIO(head), delimiter, source.limits.max_line_bytes), None)
    return record.values if record else []


def column_names(header: list[str]) -> list[str]:
    """The names in a header's fields; one without a name, such as an index, is called by its
    place."""
    return [clean_text(name).strip() or f"column_{n}" for n, name in enumerate(header, 1)]


def prompt_column(source: Source, names: list[str]) -> str:
    """The column that holds the prompts; `InputNotUnderstood` where there is none."""
    found = next((name for name in _wanted(source) if name in names), None)
    if found is None:
        lacks = f"no column {source.column!r}" if source.column else NO_PROMPT_COLUMN
        shown = ", ".join(" ".join(name.split()) for name in names)
        raise InputNotUnderstood(
            f"{source.name} has {lacks}; it has {shown}. Name the prompts' column with "
            "--column, or read every line as a prompt with --input-format text."
        )
    return found


def _wanted(source: Source) -> tuple[str, ...]:
    """The names that the prompts' column may have."""
    return (source.column,) if source.column else PROMPT_FIELDS


def _names(source: Source, records: Iterator[_Record]) -> list[str]:
    header = next(records, None)
    if header is None or header.problem:
        reason = header.problem if header else "There is no line in it."
        raise InputNotUnderstood(f"{source.name} has no header that can be read. {reason}")
    names = column_names(header.values)
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputNotUnderstood(f"{source.name} has two columns of the name {twice[0]!r}.")
    return names


def _row(record: _Record, names: list[str], column: str) -> Row:
    fields: dict[str, Any] = dict(zip(names, map(clean_text, record.values), strict=False))
    problem = _fault(record, names)
    if problem is not None:
        return Row(record.number, None, fields, problem=problem)
    text = record.values[names.index(column)]
    if is_blank(text):
        problem = f"The column {column!r} is empty."
    elif not is_clean(text):
        problem = f"The column {column!r} {NOT_UTF8}"
    prompt = None if problem else text_prompt(column, text)
    if prompt is None and problem is None:
        problem = NO_MESSAGES
    return Row(record.number, prompt, fields, problem=problem)


def _fault(record: _Record, names: list[str]) -> str | None:
    if record.problem is None and len(record.values) != len(names):
        return f"The row has {len(record.values)} fields, the header {len(names)}."
    return record.problem


class _TooLong(Exception):
    """The record is longer than the limit."""


class _Feed:
    """Lines for `csv.reader`, which can be read again from any line of the record at hand."""

    def __init__(self, lines: Iterator[bytes | None], limit: int) -> None:
        self._lines = lines
        self._limit = limit
        self._again: deque[bytes | None] = deque()
        self._size = 0
        self.taken: list[bytes | None] = []
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self.number += 1
        self.taken.append(line)
        if line is not None:
            line = without_mark(line)
            self._size += len(line)
        if line is None or self._size > self._limit or len(self.taken) > MOST_LINES:
            raise _TooLong
        return line.decode(errors="surrogateescape") + "\n"

    def begin(self) -> None:
        """The next line begins a record."""
        self.taken.clear()
        self._size = 0

    def go_back(self) -> None:
        """The next line is the second of the record at hand."""
        self._again.extendleft(reversed(self.taken[1:]))
        self.number -= len(self.taken) - 1


def _records(stream: BinaryIO, delimiter: str, limit: int) -> Iterator[_Record]:
    """The records of a stream that are not blank; memory stays at about the limit."""
    feed = _Feed(_lines(stream, limit), limit)
    reader = _reader(feed, delimiter)
    while True:
        feed.begin()
        first = feed.number + 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except (csv.Error, _TooLong) as error:
            yield _Record(first, [], _problem(error, feed.taken, limit))
            feed.go_back()
            reader = _reader(feed, delimiter)
            continue
        (line, *more) = feed.taken
        if more or not is_blank_bytes(without_mark(line or b"")):
            yield _Record(first, values)


def _lines(stream: BinaryIO, limit: int) -> Iterator[bytes | None]:
    """All lines without their LF, blank ones too; ``None`` for one that is certainly too long.

    Not those of `storage.streams.jsonl`: a blank line may stand within quotes.
    """
    most = limit + len(b"\xef\xbb\xbf\r\n")
    while line := stream.readline(most):
        if len(line) == most and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = stream.readline(READ_BYTES)
            yield None
        else:
            yield line.removesuffix(b"\n")


def _reader(feed: _Feed, delimiter: str) -> Iterator[list[str]]:
    return csv.reader(feed, delimiter=delimiter, strict=True)


def _problem(error: Exception, taken: list[bytes | None], limit: int) -> str:
    """Why the record of these lines cannot be read."""
    if isinstance(error, _TooLong) and len(taken) == 1:
        return f"The line is longer than {limit} bytes."
    if isinstance(error, _TooLong) or "unexpected end" in str(error):
        return "A quote is opened in this line and closed in none after it."
    if "expected after" in str(error):
        return "Something other than a delimiter follows a closing quote."
    if "new-line character" in str(error):
        return "A carriage return stands within the line; lines end in LF or CRLF."
    return f"The line is no record: {error}."
