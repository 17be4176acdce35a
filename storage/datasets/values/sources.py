"""What an input file is: its kind, how large it may be, and where its prompts are.

The kinds that are understood:

- ``requests``: lines of ``{"custom_id", "method", "url", "body"}``, sent as they are;
- ``jsonl``: lines of ``{"prompt": …}`` or ``{"messages": […]}``, with any other fields beside;
- ``text``: one prompt a line;
- ``csv`` and ``tsv``: a header, and a column ``prompt`` or ``messages``;
- ``parquet``: a column ``prompt`` (strings) or ``messages`` (lists of role and content).

All but the first are called plain inputs. All but Parquet may be compressed with gzip or Zstandard.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from storage.datasets.values.files import DataFile, LocalFile
from storage.endpoints import CHAT_COMPLETIONS

EXPECTED = (
    "Expected one of: lines of {custom_id, method, url, body}; lines of {prompt} or {messages}; "
    "plain text with one prompt a line; a CSV, TSV or Parquet file with a column prompt or "
    "messages. --input-format says which it is, --column which field holds the prompts."
)

ENCRYPTED = "{} is an encrypted Parquet file, and there is no key for it; write it in plain."


class Kind(StrEnum):
    """The kinds of input."""

    REQUESTS = "requests"
    JSONL = "jsonl"
    TEXT = "text"
    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"

    @property
    def delimited(self) -> bool:
        """Whether its records are fields with a delimiter between them, below a header."""
        return self in (Kind.CSV, Kind.TSV)


_LABELS = {
    Kind.REQUESTS: "batch requests",
    Kind.JSONL: "JSON lines",
    Kind.TEXT: "text, one prompt a line",
    Kind.CSV: "CSV",
    Kind.TSV: "TSV",
    Kind.PARQUET: "Parquet",
}


def shown(name: str) -> str:
    """A file's name for messages and JSON: its bytes that are not UTF-8 become U+FFFD."""
    return name.encode(errors="surrogateescape").decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Limits:
    """How large an input may be, in bytes, as the service's settings of the same names; and what
    ends its reading earlier.

    Attributes:
        max_line_bytes: a longer line is not read, and its row fails.
        max_decoded_bytes: most bytes that a compressed or Parquet file may unpack to.
        heartbeat: called for every piece that is read, whatever it holds; raises to end the
            reading.
    """

    max_line_bytes: int = 8 * 1024**2
    max_decoded_bytes: int = 200 * 1024**3
    heartbeat: Callable[[], None] = field(default=lambda: None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Source:
    """An input file whose kind is known.

    Attributes:
        name: what to call it in messages and in the name of the output; the file may be a copy.
        column: the field or column that holds the prompts; ``None`` looks for ``messages`` and
            ``prompt`` in every row.
        endpoint: the endpoint that its requests name; for plain inputs the default.
        reason: how its kind was told.
        asked: whether the user named its kind.
        delimiter: what stands between the fields of a delimited file.
        columns: the columns that a template takes of rows that are written again beside their
            results; no column need hold prompts then.
    """

    file: DataFile
    name: str
    kind: Kind
    column: str | None = None
    endpoint: str = CHAT_COMPLETIONS
    limits: Limits = Limits()
    reason: str = ""
    asked: bool = False
    delimiter: str = ","
    columns: frozenset[str] | None = None

    @property
    def described(self) -> str:
        """What it is read as, and why, in one line."""
        return f"Reading {self.name} as {_LABELS[self.kind]}: {self.reason}"

    @property
    def path(self) -> Path:
        """Where an input of this machine's file system is; `TypeError` for any other."""
        if not isinstance(self.file, LocalFile):
            raise TypeError(f"{self.name} is no file of this machine.")
        return self.file.path
