"""Rows of a plain input, their prompts, and the ``custom_id`` by which results find them again."""

import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, TypeGuard

import msgspec

from storage.datasets.values.sources import Kind
from storage.streams.json_faults import json_kind

PROMPTS = "a prompt is a string or a list of messages"
NO_MESSAGES = "The text in 'messages' is JSON, but no list of messages that can be read."
MAX_DIGITS = 18
_OBJECTS = re.compile(r"\s*\[\s*\{")
MESSAGES = "messages"
PROMPT_FIELDS = (MESSAGES, "prompt")
SHOWN_NAMES, SHOWN_CHARACTERS = 8, 40

Prompt = str | list[dict[str, Any]]


class Row(msgspec.Struct, frozen=True):
    """One row of a plain input.

    Attributes:
        number: from 1; for lines the line's own number, blank lines counted.
        prompt: a string or chat messages; ``None`` where the row has none.
        fields: what the row holds, the prompt included; of a Parquet row the names, no values. A
            number of JSON that is no integer is the `msgspec.Raw` of its digits.
        raw: the line itself where it is not JSON as the service reads it, or no object; the service
            then says what is wrong.
        problem: why the row has no prompt, where the service could not know.
        param: what asks for the part of the row that is at fault, where that is known.
    """

    number: int
    prompt: Prompt | None
    fields: Mapping[str, Any]
    raw: bytes | None = None
    problem: str | None = None
    param: str | None = None


def prompt_of(fields: Mapping[str, Any], column: str | None) -> Prompt | None:
    """The prompt among a row's fields, or ``None`` where there is none that could be one."""
    for name in (column,) if column else PROMPT_FIELDS:
        value = fields.get(name)
        if isinstance(value, str):
            return text_prompt(name, value)
        if _is_messages(value):
            return value
    return None


def text_prompt(column: str, text: str) -> Prompt | None:
    """What a text of a column stands for: itself, or in ``messages`` the messages in JSON.

    ``None`` where it is JSON of something else, or begins as a list of objects and is not JSON.
    """
    if column != MESSAGES:
        return text
    try:
        value = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None if _OBJECTS.match(text) else text
    if not isinstance(value, list | dict):
        return text
    return value if _is_messages(value) else None


def _is_messages(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


def why_no_prompt(fields: Mapping[str, Any], column: str | None) -> str:
    """The reason for which `prompt_of` finds none."""
    names = (column,) if column else PROMPT_FIELDS
    found = [name for name in names if name in fields]
    if not found:
        wanted = f"no field {column!r}" if column else "neither a field 'prompt' nor 'messages'"
        return f"The row has {wanted}; it has {listed(fields)}."
    name = next((name for name in found if fields[name] is not None), found[0])
    value = fields[name]
    if name == MESSAGES and isinstance(value, str):
        return NO_MESSAGES
    if isinstance(value, list):
        kind = "a list of other things than messages" if value else "an empty list"
    else:
        kind = json_kind(value)
    return f"The field {name!r} is {kind}; {PROMPTS}."


def listed(names: Iterable[str]) -> str:
    """The first few names, for messages."""
    first = [repr(name)[:SHOWN_CHARACTERS] for name in islice(names, SHOWN_NAMES + 1)]
    if not first:
        return "none at all"
    return ", ".join(first[:SHOWN_NAMES]) + (" and others" if len(first) > SHOWN_NAMES else "")


def custom_id(kind: Kind, number: int) -> str:
    """The ``custom_id`` of a row: ``line-7``, or ``row-7`` where the input has no lines."""
    return f"{id_prefix(kind)}{number}"


def id_prefix(kind: Kind) -> str:
    """How the `custom_id` of every row begins."""
    return "row-" if kind is Kind.PARQUET else "line-"


def row_number(custom_id: str) -> int | None:
    """The number of the row that a ``custom_id`` made here belongs to; ``None`` for any other."""
    prefix, dash, digits = custom_id.partition("-")
    ours = bool(dash) and prefix in ("line", "row") and digits.isascii() and digits.isdecimal()
    return int(digits) if ours and len(digits) <= MAX_DIGITS else None
