"""The first lines of a file, and whether they are meant as JSON."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.datasets.readers.json_lines import json_value
from storage.datasets.values.files import plain_name
from storage.datasets.values.sources import EXPECTED
from storage.errors import EmptyInput
from storage.streams.jsonl import without_mark
from storage.streams.lines import is_blank_bytes

SAMPLE_LINES = 64
SHOWN_CHARACTERS = 120
LONG_BYTES = 500_000  # of a sample that may end within a value
_NOT_JSON = object()
_PYTHON_DICT = re.compile(r"\s*\{\s*'[^']*'\s*:.*\}\s*\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Sample:
    """The first lines of a file that are not blank.

    Attributes:
        lines: each with its number; at least one.
        first: the first one's value; a mark of its own where it is not JSON.
        objects: the JSON objects among the lines.
        is_document: whether one JSON value goes over several lines.
    """

    name: str
    lines: list[tuple[int, bytes]]
    first: Any
    objects: list[dict[str, Any]]
    is_document: bool

    @classmethod
    def of(cls, name: str, head: bytes) -> "Sample":
        """The sample that a file's head gives; `EmptyInput` where all of it is blank."""
        lines = [
            (number, line)
            for number, line in enumerate(map(without_mark, head.split(b"\n")), 1)
            if not is_blank_bytes(line)
        ][:SAMPLE_LINES]
        if not lines:
            raise EmptyInput(f"{name} is empty. {EXPECTED}")
        values = [_value(line) for _, line in lines]
        objects = [value for value in values if isinstance(value, dict)]
        return cls(name, lines, values[0], objects, values[0] is _NOT_JSON and _is_document(head))

    @staticmethod
    def shown(line: bytes) -> str:
        """A line for a message."""
        text = line.decode(errors="replace").removesuffix("\r")
        return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"

    @property
    def first_text(self) -> str:
        """The first line as text."""
        return self.lines[0][1].decode(errors="replace")

    @property
    def begins_with_json(self) -> bool:
        """Whether the first line is a JSON object or array."""
        return isinstance(self.first, dict | list) or self.is_document

    @property
    def begins_as_python(self) -> bool:
        """Whether the first line is a dict as Python prints it."""
        return self.first is _NOT_JSON and _PYTHON_DICT.match(self.first_text) is not None


def means_json(sample: Sample) -> bool:
    """Whether a file is meant as JSON lines, though some of them may be broken."""
    suffix = Path(plain_name(sample.name.lower())).suffix
    if suffix in (".jsonl", ".ndjson", ".json"):
        return True
    first = sample.first
    if first is _NOT_JSON:
        begun = sample.first_text.lstrip().startswith('{"') and bool(sample.objects)
        return begun or sample.is_document or sample.begins_as_python
    if isinstance(first, list) and suffix == ".txt":
        return any(isinstance(item, dict) for item in first)
    return isinstance(first, dict | list) or (isinstance(first, str) and suffix != ".txt")


def _value(line: bytes) -> Any:
    try:
        return json_value(line)
    except (ValueError, RecursionError):
        return _NOT_JSON


def _is_document(head: bytes) -> bool:
    text = without_mark(head).decode(errors="replace").lstrip()
    if text[:1] not in ("{", "["):
        return False
    try:
        _, end = json.JSONDecoder(strict=False).raw_decode(text)
    except json.JSONDecodeError as error:
        # The sample may end within it. A long object in one line may be a row.
        at_end = not text[error.pos :].strip() or error.msg.startswith("Unterminated string")
        ends_within = at_end and len(head) >= LONG_BYTES
        return ends_within and (text[0] == "[" or "\n" in text)
    except (ValueError, RecursionError):
        return False
    return "\n" in text[:end]
