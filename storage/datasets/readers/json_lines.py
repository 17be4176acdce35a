"""JSON lines: every line is an object, and one of its fields is the prompt.

Only what is sent must be JSON as the service reads it. So a line is read as leniently as Python
reads it, and NaN, half of a surrogate pair or a byte that is not UTF-8 costs its row only where it
is part of the prompt. Numbers with a fraction or an exponent stay the digits that the line has.
"""

import json
import math
import re
from collections.abc import Collection
from typing import Any

import msgspec

from storage.datasets.values.json_text import with_leaves
from storage.datasets.values.rows import Row, prompt_of, why_no_prompt

TOO_DEEP = "The line is nested too deeply."
_HALVES = re.compile("[\ud800-\udfff]")
_MOST_DIGITS = 4_300  # of an integer, in msgspec as in Python


def json_row(number: int, line: bytes, column: str | None) -> Row:
    """The row of a line; one that is no JSON object is kept as it is, for the service to refuse."""
    try:
        value, strict = _read(line)
        if not isinstance(value, dict):
            return Row(number, None, {}, raw=line)
        prompt = prompt_of(value, column)
        fields = value if strict else _clean(value)
        if prompt is None:
            return Row(number, None, fields, problem=why_no_prompt(fields, column))
        if strict or _is_sendable(prompt):
            return Row(number, prompt, fields)
        return Row(number, None, fields, raw=line)
    except RecursionError:
        return Row(number, None, {}, problem=TOO_DEEP)
    except ValueError:
        return Row(number, None, {}, raw=line)


def json_record(number: int, line: bytes, columns: Collection[str]) -> Row:
    """The row of a line of which only these fields are sent, without a prompt.

    One that is no JSON object, or has such a field that cannot be sent, is kept as it is.
    """
    try:
        value, strict = _read(line)
        if not isinstance(value, dict):
            return Row(number, None, {}, raw=line)
        if strict:
            return Row(number, None, value)
        sendable = all(_is_sendable(value[name]) for name in columns if name in value)
        return Row(number, None, _clean(value), raw=None if sendable else line)
    except RecursionError:
        return Row(number, None, {}, problem=TOO_DEEP)
    except ValueError:
        return Row(number, None, {}, raw=line)


def json_value(line: bytes) -> Any:
    """The value that a line holds.

    Raises:
        ValueError: it is not JSON.
        RecursionError: it is nested too deeply.
    """
    return _read(line)[0]


def _read(line: bytes) -> tuple[Any, bool]:
    """A line's value, and whether it is JSON in every respect."""
    try:
        msgspec.json.decode(line)  # refuses numbers out of range
        return _VERBATIM.decode(line), True
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _LENIENT.decode(line.decode(errors="surrogateescape")), False


class _Digits(str):
    """A number that no type of ours holds, as it is written."""


def _integer(digits: str) -> int | _Digits:
    return int(digits) if len(digits) <= _MOST_DIGITS else _Digits(digits)


def _float(digits: str) -> msgspec.Raw | _Digits:
    return msgspec.Raw(digits) if math.isfinite(float(digits)) else _Digits(digits)


_VERBATIM = msgspec.json.Decoder(float_hook=msgspec.Raw)
_LENIENT = json.JSONDecoder(strict=False, parse_int=_integer, parse_float=_float)


def clean_text(text: str) -> str:
    """A text that can be written: halves of surrogate pairs become U+FFFD, and so do bytes that
    were decoded as such (``surrogateescape``)."""
    return _HALVES.sub("\ufffd", text)


def is_clean(text: str) -> bool:
    """Whether `clean_text` changes nothing."""
    return _HALVES.search(text) is None


def _clean(value: Any) -> Any:
    return with_leaves(value, _clean_leaf, clean_text)


def _clean_leaf(value: Any) -> Any:
    return clean_text(str(value)) if isinstance(value, str) else value


def _is_sendable(value: Any) -> bool:
    todo = [value]
    while todo:
        held = todo.pop()
        if isinstance(held, dict):
            todo += [*held, *held.values()]
        elif isinstance(held, list):
            todo += held
        elif isinstance(held, str):
            if isinstance(held, _Digits) or not is_clean(held):
                return False
        elif isinstance(held, float) and not math.isfinite(held):
            return False
    return True
