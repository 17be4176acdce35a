"""Plain text: every line is a prompt."""

from storage.datasets.values.rows import Row
from storage.streams.json_faults import utf8_fault


def text_row(number: int, line: bytes) -> Row:
    """The row of a line; one that is not UTF-8 has no prompt."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        fields = {"prompt": line.decode(errors="replace")}
        problem = f"The line is not UTF-8 text: it has {utf8_fault(line, error)}."
        return Row(number, None, fields, problem=problem)
    return Row(number, text, {"prompt": text})


def is_utf8(line: bytes) -> bool:
    """Whether a line can be decoded."""
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True
