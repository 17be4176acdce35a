"""Which kind of input a file is, told by its content."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from storage.datasets.readers.json_lines import json_object
from storage.datasets.readers.requests import endpoint_of, is_request
from storage.datasets.readers.text import is_utf8
from storage.datasets.readers.unpacked import open_unpacked
from storage.datasets.values.rows import prompt_of
from storage.datasets.values.sources import EXPECTED, Kind, Limits, Source
from storage.errors import InputNotUnderstood
from storage.streams.lines import is_blank_bytes

SAMPLE_BYTES = 1024 * 1024
SAMPLE_LINES = 64
SHOWN_CHARACTERS = 120
_BOM = b"\xef\xbb\xbf"
_PARQUET_MAGIC = b"PAR1"


def open_source(
    path: Path,
    *,
    name: str | None = None,
    column: str | None = None,
    limits: Limits = Limits(),
) -> Source:
    """Look at the beginning of a file and tell what it is.

    Args:
        name: its name where the path is only a copy of it.
        column: the field or column with the prompts, for plain inputs.

    Raises:
        InputNotUnderstood: it cannot be read, is none of the kinds, or is larger than the limits.
    """
    name = name or path.name
    try:
        with open_unpacked(path, name, limits) as stream:
            head = _head(stream, limits)
    except OSError as error:
        raise InputNotUnderstood(f"{name} cannot be read: {error.strerror}.") from error
    if head.startswith(_PARQUET_MAGIC) and _starts_with(path, _PARQUET_MAGIC):
        from storage.datasets.readers.parquet import prompt_column

        column = prompt_column(path, column, limits, name)
        return Source(path, name, Kind.PARQUET, column, limits=limits)
    if b"\0" in head:
        raise InputNotUnderstood(f"{name} is a binary file. {EXPECTED}")
    sample = _Sample.of(name, head)
    if requests := [fields for fields in sample.objects if is_request(fields)]:
        if column:
            raise InputNotUnderstood(
                f"{name} holds whole requests, so --column has no meaning for it."
            )
        return Source(path, name, Kind.REQUESTS, endpoint=endpoint_of(requests), limits=limits)
    if any(prompt_of(fields, column) is not None for fields in sample.objects):
        return Source(path, name, Kind.JSONL, column, limits=limits)
    _check_text(sample, column)
    return Source(path, name, Kind.TEXT, limits=limits)


def _head(stream: BinaryIO, limits: Limits) -> bytes:
    """The first lines, whole."""
    head = stream.read(SAMPLE_BYTES)
    if b"\n" not in head:
        return head + stream.readline(limits.max_line_bytes)
    return head[: head.rindex(b"\n")] if len(head) == SAMPLE_BYTES else head


def _starts_with(path: Path, magic: bytes) -> bool:
    """Whether the file itself begins so, not only what it unpacks to."""
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


@dataclass(frozen=True, slots=True)
class _Sample:
    """The first lines of a file that are not blank, and the JSON objects among them.

    Attributes:
        lines: each with its number; at least one.
    """

    name: str
    lines: list[tuple[int, bytes]]
    objects: list[dict[str, Any]]

    @classmethod
    def of(cls, name: str, head: bytes) -> "_Sample":
        """The sample that a file's head gives; `InputNotUnderstood` where all of it is blank."""
        lines = [
            (number, line)
            for number, line in enumerate(head.removeprefix(_BOM).split(b"\n"), 1)
            if not is_blank_bytes(line)
        ][:SAMPLE_LINES]
        if not lines:
            raise InputNotUnderstood(f"{name} is empty. {EXPECTED}")
        objects = [fields for _, line in lines if (fields := json_object(line)) is not None]
        return cls(name, lines, objects)


def _check_text(sample: _Sample, column: str | None) -> None:
    """Refuse what looks like JSON, what has no columns, and what is mostly not UTF-8.

    A few lines that are not UTF-8 only fail their own rows.
    """
    name, (number, first) = sample.name, sample.lines[0]
    if sample.objects or first.lstrip()[:1] in (b"{", b"["):
        wanted = f"the field {column!r}" if column else "a prompt"
        raise InputNotUnderstood(
            f"{name} looks like JSON, but no line of it holds {wanted}.\n"
            f"Line {number}: {_shown(first)}\n{EXPECTED}"
        )
    if column:
        raise InputNotUnderstood(f"{name} is plain text, which has no column {column!r}.")
    bad = [(number, line) for number, line in sample.lines if not is_utf8(line)]
    if len(bad) * 2 >= len(sample.lines):
        number, line = bad[0]
        raise InputNotUnderstood(
            f"{name}, line {number} is not UTF-8 text: {_shown(line)}\n{EXPECTED}"
        )


def _shown(line: bytes) -> str:
    text = line.decode(errors="replace")
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"
