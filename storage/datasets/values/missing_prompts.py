"""Why a row has no prompt, for its user."""

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from storage.streams.json_faults import json_kind

PROMPT_FIELDS = ("messages", "prompt")  # the first that holds a prompt is taken
SHOWN_NAMES, SHOWN_CHARACTERS = 8, 40


def why_no_prompt(fields: Mapping[str, Any], column: str | None) -> str:
    """The reason for which `prompt_of` finds none."""
    names = (column,) if column else PROMPT_FIELDS
    found = [name for name in names if name in fields]
    if not found:
        wanted = f"no field {column!r}" if column else "neither a field 'prompt' nor 'messages'"
        return f"The row has {wanted}; it has {_listed(fields)}."
    name = next((name for name in found if fields[name] is not None), found[0])
    value = fields[name]
    if isinstance(value, str):
        return f"The field {name!r} is JSON, but no list of messages."
    if isinstance(value, list):
        kind = "a list of other things than messages" if value else "an empty list"
    else:
        kind = json_kind(value)
    return f"The field {name!r} is {kind}; a prompt is a string or a list of messages."


def _listed(names: Iterable[str]) -> str:
    first = [repr(name)[:SHOWN_CHARACTERS] for name in islice(names, SHOWN_NAMES + 1)]
    if not first:
        return "none at all"
    return ", ".join(first[:SHOWN_NAMES]) + (" and others" if len(first) > SHOWN_NAMES else "")
