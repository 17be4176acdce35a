"""Why a line is not JSON: what stands in it, and at which column.

Columns count characters from 1. What Python's reader lets pass and JSON does not have (NaN, halves
of surrogate pairs, numbers without bounds) is found by a look at every token.
"""

import json
import re

import msgspec

MAX_DEPTH = 1_024
_TOKENS = re.compile(r'"(?:[^"\\]++|\\.)*+"|NaN|-?Infinity|-?\d[\d.eE+-]*+', re.DOTALL)
_ESCAPES = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_WORD = re.compile(r"[A-Za-z_]\w*")
_PYTHON = {"None": "null", "True": "true", "False": "false", "undefined": "null", "nan": "null"}
_KINDS = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    msgspec.Raw: "a number",
    type(None): "null",
}
_ONE_DOCUMENT = "jq -c makes lines of a document that goes over several"


def json_kind(value: object) -> str:
    """What JSON calls a value: ``an array``, ``a string``, ``null``. ``msgspec.Raw`` is a number
    that was kept as its digits."""
    return _KINDS.get(type(value), "no value of JSON")


def json_fault(line: bytes) -> str | None:
    """The first thing for which a line is not JSON, e.g. ``NaN at column 40``.

    ``None`` where it is JSON. Nesting beyond `MAX_DEPTH`, which the service does not read, is a
    fault as well.
    """
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        return utf8_fault(line, error)
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return _syntax(text, error)
    except RecursionError:
        return f"it is nested more than {MAX_DEPTH:,} deep"
    except ValueError:
        pass  # an integer of more digits than Python reads
    return _token_fault(text) or _depth_fault(text)


def utf8_fault(line: bytes, error: UnicodeDecodeError) -> str:
    """The same for a line that is not UTF-8."""
    column = len(line[: error.start].decode()) + 1
    if line[error.start] == 0xED and line[error.start + 1 : error.start + 2] >= b"\xa0":
        return f"half of a surrogate pair at column {column}"
    return f"the byte 0x{line[error.start]:02X}, which is not UTF-8, at column {column}"


def _token_fault(text: str) -> str | None:
    for token in _TOKENS.finditer(text):
        column, word = token.start() + 1, token[0]
        if word[0] == '"':
            for escape in _ESCAPES.finditer(word):
                if escape["half"]:
                    place = column + escape.start()
                    return f"half of a surrogate pair, {escape[0]}, at column {place}"
        elif word[-1] in "Ny":
            return f"{word} at column {column}; JSON has only null for it"
        elif _is_infinite(word):
            return f"the number at column {column} is out of range"
    return None


def _is_infinite(number: str) -> bool:
    return float(number) in (float("inf"), float("-inf"))


def _depth_fault(text: str) -> str | None:
    depth = 0
    for bracket in re.finditer(r'"(?:[^"\\]++|\\.)*+"|[\[{]|[]}]', text, re.DOTALL):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(bracket[0], 0)
        if depth > MAX_DEPTH:
            return f"it is nested more than {MAX_DEPTH:,} deep"
    return None


def _syntax(text: str, error: json.JSONDecodeError) -> str:
    """What is wrong at the place where Python's reader gave up."""
    at = error.pos + len(text[error.pos :]) - len(text[error.pos :].lstrip())
    if error.msg.startswith("Unterminated string"):
        return f"it is cut off: the string at column {error.pos + 1} has no end"
    if at >= len(text):
        return _cut_off(text)
    if error.msg.startswith("Invalid control character"):
        code = f"U+{ord(text[error.pos]):04X}"
        return f"a control character, {code}, in a string at column {error.pos + 1}"
    if error.msg.startswith("Invalid \\"):
        return f"an escape that JSON does not have, at column {error.pos + 1}"
    comma = _trailing_comma(text, at)
    if comma is not None:
        return f"a trailing comma at column {comma + 1}"
    if error.msg.startswith("Extra data"):
        return f"more than one value: another begins at column {at + 1}"
    if text[at] == "'":
        return f"a single quote at column {at + 1}; JSON has double quotes"
    if word := _WORD.match(text, at):
        instead = f"; JSON has {_PYTHON[word[0]]}" if word[0] in _PYTHON else ""
        return f"the word {word[0][:40]} at column {at + 1}{instead}"
    return f"{text[at]!r} at column {at + 1} is not expected there"


def _cut_off(text: str) -> str:
    fault = f"it is cut off at column {len(text.rstrip()) + 1}"
    return f"{fault} ({_ONE_DOCUMENT})" if len(text.strip()) <= 2 else fault


def _trailing_comma(text: str, at: int) -> int | None:
    """Where a comma stands before a closing bracket, if that is what was found at ``at``."""
    if text[at] == ",":
        return at if text[at + 1 :].lstrip()[:1] in ("", "]", "}") else None
    before = text[:at].rstrip()
    return len(before) - 1 if text[at] in "]}" and before.endswith(",") else None
