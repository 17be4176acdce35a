"""What an input file is, told by its content, and its rows.

Four kinds are understood:

- ``openai``: lines of ``{"custom_id", "method", "url", "body"}``, sent as they are;
- ``jsonl``: lines of ``{"prompt": …}`` or ``{"messages": […]}``, with any other fields beside;
- ``text``: one prompt a line;
- ``parquet``: a column ``prompt`` (strings) or ``messages`` (lists of role and content).

All but Parquet may be compressed with gzip, which is unpacked as it is read.

A row's number counts from 1; for lines it is the line's own number, blank lines counted.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from storage.errors import DamagedData, DecodedTooLarge
from storage.streams.gzipped import decoded
from storage.streams.jsonl import read_lines
from tidemill.errors import InputError

SAMPLE_BYTES = 1024 * 1024
SAMPLE_LINES = 64
SHOWN_CHARACTERS = 120
CHAT = "/v1/chat/completions"
EXPECTED = (
    "Expected one of: lines of {custom_id, method, url, body}; lines of {prompt} or {messages}; "
    "plain text with one prompt a line; a Parquet file with a column prompt or messages."
)
BATCH_KEYS = frozenset({"custom_id", "method", "url", "body"})

Prompt = str | list[dict[str, Any]]


class Kind(StrEnum):
    """The kinds of input."""

    OPENAI = "openai"
    JSONL = "jsonl"
    TEXT = "text"
    PARQUET = "parquet"


@dataclass(frozen=True, slots=True)
class Limits:
    """How large an input may be, in bytes; the service's settings of the same names.

    Attributes:
        max_line_bytes: of a longer line nothing is read, and its row fails.
        max_decoded_bytes: what a compressed file may hold.
    """

    max_line_bytes: int = 8 * 1024**2
    max_decoded_bytes: int = 200 * 1024**3


@dataclass(frozen=True, slots=True)
class Source:
    """An input file that was understood.

    Attributes:
        name: what to call it, e.g. in the name of the output.
        column: the field or column that holds the prompts; ``None`` looks for ``prompt`` and
            ``messages`` in every row.
        endpoint: the endpoint its requests are for, where the file says so.
    """

    path: Path
    name: str
    kind: Kind
    column: str | None = None
    endpoint: str = CHAT
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a plain input.

    Attributes:
        number: from 1.
        prompt: a string or chat messages; ``None`` where the row has none.
        fields: what the row holds, the prompt included.
        raw: the line itself where it is not a JSON object; the service then says what is wrong.
        problem: why the row has no prompt, where the service could not know.
    """

    number: int
    prompt: Prompt | None
    fields: Mapping[str, Any]
    raw: bytes | None = None
    problem: str | None = None


def open_source(
    path: Path,
    *,
    name: str | None = None,
    column: str | None = None,
    limits: Limits = Limits(),
) -> Source:
    """Look at a file and tell what it is.

    Args:
        name: its name where the path is only a copy of it.
        column: the field or column with the prompts, for plain inputs.

    Raises:
        InputError: it cannot be read, is none of the kinds, or is larger than the limits.
    """
    name = name or path.name
    try:
        with path.open("rb") as file, _unpacking(name):
            head = _head(decoded(file, max_bytes=limits.max_decoded_bytes), limits)
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}.") from error
    if head.startswith(b"PAR1") and _starts_with(path, b"PAR1"):
        from tidemill.parquet import prompt_column

        column = prompt_column(path, column, limits)
        return Source(path, name, Kind.PARQUET, column, limits=limits)
    if b"\0" in head:
        raise InputError(f"{name} is a binary file. {EXPECTED}")
    return replace(_of_lines(path, name, column, head), limits=limits)


def _head(stream: BinaryIO, limits: Limits) -> bytes:
    """The first lines, whole."""
    head = stream.read(SAMPLE_BYTES)
    if b"\n" not in head:
        return head + stream.readline(limits.max_line_bytes)
    return head[: head.rindex(b"\n")] if len(head) == SAMPLE_BYTES else head


def _starts_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


@contextmanager
def _unpacking(name: str) -> Iterator[None]:
    try:
        yield
    except (DamagedData, DecodedTooLarge) as error:
        raise InputError(f"{name} cannot be read: {error}") from error


def read_rows(source: Source) -> Iterator[Row]:
    """The rows of a plain input, as a stream; a line that cannot be read is a row with a problem.

    Raises:
        InputError: a compressed or Parquet file is damaged, or holds more than the limit.
    """
    if source.kind is Kind.PARQUET:
        from tidemill.parquet import read_parquet_rows

        yield from read_parquet_rows(source)
        return
    limits = source.limits
    with source.path.open("rb") as file, _unpacking(source.name):
        plain = decoded(file, max_bytes=limits.max_decoded_bytes)
        for line in read_lines(plain, max_line_bytes=limits.max_line_bytes):
            if line.error is not None:
                yield Row(line.number, None, {}, problem=str(line.error))
            elif line.data.strip():
                row_of = _text_row if source.kind is Kind.TEXT else _json_row
                yield row_of(source, line.number, line.data)


def prompt_of(fields: Mapping[str, Any], column: str | None) -> Prompt | None:
    """The prompt among a row's fields, or ``None`` where there is none that could be one."""
    for name in (column,) if column else ("messages", "prompt"):
        value = fields.get(name)
        if isinstance(value, str):
            return value
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            return value
    return None


def _text_row(source: Source, number: int, data: bytes) -> Row:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        shown = {"prompt": data.decode(errors="replace")}
        return Row(number, None, shown, problem="The line is not UTF-8 text.")
    return Row(number, text, {"prompt": text})


def _json_row(source: Source, number: int, data: bytes) -> Row:
    fields = _object(data)
    if fields is None:
        return Row(number, None, {}, raw=data)
    return Row(number, prompt_of(fields, source.column), fields)


def _of_lines(path: Path, name: str, column: str | None, head: bytes) -> Source:
    lines = [
        (number, line)
        for number, line in enumerate(head.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1)
        if line.strip()
    ][:SAMPLE_LINES]
    if not lines:
        raise InputError(f"{name} is empty. {EXPECTED}")
    objects = [fields for _, line in lines if (fields := _object(line)) is not None]
    requests = [fields for fields in objects if len(BATCH_KEYS & fields.keys()) >= 2]
    if requests:
        if column:
            raise InputError(f"{name} holds whole requests, so --column has no meaning for it.")
        urls = (fields.get("url") for fields in requests)
        endpoint = next((url for url in urls if isinstance(url, str)), CHAT)
        return Source(path, name, Kind.OPENAI, endpoint=endpoint)
    if any(prompt_of(fields, column) is not None for fields in objects):
        return Source(path, name, Kind.JSONL, column)
    number, first = lines[0]
    if objects or first.lstrip()[:1] in (b"{", b"["):
        wanted = f"the field {column!r}" if column else "a prompt"
        raise InputError(
            f"{name} looks like JSON, but no line of it holds {wanted}.\n"
            f"Line {number}: {_shown(first)}\n{EXPECTED}"
        )
    if column:
        raise InputError(f"{name} is plain text, which has no column {column!r}.")
    _check_text(name, lines)
    return Source(path, name, Kind.TEXT)


def _check_text(name: str, lines: list[tuple[int, bytes]]) -> None:
    """Refuse what is mostly not UTF-8: a single bad line fails its own row alone."""
    bad = [(number, line) for number, line in lines if not _is_utf8(line)]
    if len(bad) * 2 >= len(lines):
        number, line = bad[0]
        raise InputError(f"{name}, line {number} is not UTF-8 text: {_shown(line)}\n{EXPECTED}")


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = msgspec.json.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _shown(line: bytes) -> str:
    text = line.decode(errors="replace")
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"
