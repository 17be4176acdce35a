"""JSON lines: every line is an object, and one of its fields is the prompt."""

from typing import Any

import msgspec

from storage.datasets.values.rows import Row, prompt_of


def json_row(number: int, line: bytes, column: str | None) -> Row:
    """The row of a line; one that is no JSON object is kept as it is, for the service to refuse."""
    fields = json_object(line)
    if fields is None:
        return Row(number, None, {}, raw=line)
    return Row(number, prompt_of(fields, column), fields)


def json_object(line: bytes) -> dict[str, Any] | None:
    """The object that a line holds; ``None`` where it is not JSON or no object."""
    try:
        value = msgspec.json.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
