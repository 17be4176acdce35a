"""Plain text: every line is a prompt."""

from storage.datasets.values.rows import Row


def text_row(number: int, line: bytes) -> Row:
    """The row of a line; one that is not UTF-8 has no prompt."""
    try:
        text = line.decode()
    except UnicodeDecodeError:
        shown = {"prompt": line.decode(errors="replace")}
        return Row(number, None, shown, problem="The line is not UTF-8 text.")
    return Row(number, text, {"prompt": text})


def is_utf8(line: bytes) -> bool:
    """Whether a line can be decoded."""
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True
