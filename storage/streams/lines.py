"""When a line of text is blank: one rule for everything that reads lines.

A line is blank if it holds nothing but white space (Unicode's) and control characters (category
Cc, e.g. U+0000, U+001F and U+007F).

Every other character is content, even one that nobody sees: a zero-width space (U+200B) and a
byte-order mark inside a line (U+FEFF) are format characters (category Cf). Bytes that are not
UTF-8 are content as well.
"""

import re

_ASCII = "".join(map(chr, (*range(0x21), 0x7F)))
_BEYOND_ASCII = "".join(
    map(
        chr,
        (
            *range(0x80, 0xA1),
            0x1680,
            *range(0x2000, 0x200B),
            *(0x2028, 0x2029, 0x202F, 0x205F, 0x3000),
        ),
    )
)
_BLANK = _ASCII + _BEYOND_ASCII
# Possessive (``++``, ``*+``): a blank line of any length then takes no memory.
_BLANK_BYTES = re.compile(
    b"(?:[%s]++|%s)*+"
    % (re.escape(_ASCII.encode()), b"|".join(char.encode() for char in _BEYOND_ASCII))
)
_FIRST_VISIBLE, _LAST_VISIBLE = 0x21, 0x7E


def is_blank(text: str) -> bool:
    """Whether a line holds nothing but white space and control characters."""
    return not text.lstrip(_BLANK)


def end_of_blank_lines(data: bytes, start: int) -> int:
    """Where the blank lines end that begin at ``start``: behind the LF of the last one.

    What follows may be the beginning of one more. A million of them take milliseconds.
    """
    if _FIRST_VISIBLE <= data[start] <= _LAST_VISIBLE:
        return start
    run = _BLANK_BYTES.match(data, start)
    return start if run is None else max(start, data.rfind(b"\n", start, run.end()) + 1)


def is_blank_bytes(line: bytes) -> bool:
    """`is_blank` for a line in UTF-8; takes no copy of it."""
    if line and _FIRST_VISIBLE <= line[0] <= _LAST_VISIBLE:
        return False
    return _BLANK_BYTES.fullmatch(line) is not None
