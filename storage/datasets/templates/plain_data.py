"""The values of templates, which are those of JSON: what they weigh, how they look as text.

A value is a text, an integer, a float, a boolean, null, a list or an object of values, or the
`msgspec.Raw` of a number's digits. Nothing else ever enters a template, and nothing else leaves it.
"""

from typing import Any, Final

import msgspec

from storage.datasets.templates.limits import ENTRY, Meter
from storage.datasets.values.json_text import json_float
from storage.errors import RowFault
from storage.streams.json_faults import json_kind

_SMALL_BITS: Final = 64
_BITS_A_DIGIT: Final = 3
_MAX_DIGITS: Final = 400
_SHOWN_NAME: Final = 60


class Missing:
    """What a name stands for that the row, or an object in it, does not have."""

    def __bool__(self) -> bool:
        return False


MISSING: Final = Missing()


def or_null(value: Any) -> Any:
    """The value, null where it is missing."""
    return None if value is MISSING else value


def kind_of(value: Any) -> str:
    """What JSON calls a value, for messages."""
    return json_kind(or_null(value))


def float_of(number: msgspec.Raw) -> float:
    """The float of a number that was kept as its digits.

    Raises:
        RowFault: they are too many.
    """
    if memoryview(number).nbytes > _MAX_DIGITS:
        raise RowFault(f"a number has more than {_MAX_DIGITS} digits")
    return float(bytes(number))


def is_true(value: Any) -> bool:
    """Whether a value counts as true: not null, zero, false or empty."""
    return bool(float_of(value) if isinstance(value, msgspec.Raw) else value)


def text_of(meter: Meter, value: Any) -> str:
    """A value in a text: a text as it is, null as nothing, all else as JSON writes it.

    Raises:
        RowFault: the value is too large.
    """
    if isinstance(value, str):
        return value
    if value is None or value is MISSING:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        held = json_float(value)
        return held if isinstance(held, str) else msgspec.json.encode(held).decode()
    if isinstance(value, list | dict):
        return json_text(meter, value)
    weigh(meter, value)
    return bytes(value).decode() if isinstance(value, msgspec.Raw) else str(value)


def json_text(meter: Meter, value: Any) -> str:
    """A value as compact JSON.

    Raises:
        RowFault: the value is too large.
    """
    weigh(meter, value)
    text = msgspec.json.encode(or_null(value)).decode()
    meter.spend_text(len(text))
    return text


def weigh(meter: Meter, value: Any) -> None:
    """Count a walk through a value, in which what stands several times counts so often.

    Raises:
        RowFault: the value is too large.
    """
    if isinstance(value, str):
        meter.spend(len(value))
        return
    todo = [value]
    while todo:
        held = todo.pop()
        if isinstance(held, str):
            meter.spend(len(held))
        elif isinstance(held, dict):
            meter.spend(ENTRY * len(held))
            todo += held
            todo += held.values()
        elif isinstance(held, list):
            meter.spend(ENTRY * len(held))
            todo += held
        elif isinstance(held, int):
            bits = held.bit_length()
            if bits > _SMALL_BITS:
                meter.spend(bits // _BITS_A_DIGIT)
        elif isinstance(held, msgspec.Raw):
            meter.spend(memoryview(held).nbytes)


def member(held: Any, name: Any) -> Any:
    """An entry of an object by its name, or of a list or text by its place; `MISSING` where there
    is none, or where there is nothing to look into.

    Raises:
        RowFault: such a value has no entries of such names.
    """
    if held is None or held is MISSING:
        return MISSING
    if isinstance(held, dict) and isinstance(name, str):
        return held.get(name, MISSING)
    if isinstance(held, list | str) and isinstance(name, int) and not isinstance(name, bool):
        return held[name] if -len(held) <= name < len(held) else MISSING
    if isinstance(name, str):
        raise RowFault(f"{kind_of(held)} has no entry {name[:_SHOWN_NAME]!r}")
    raise RowFault(f"{kind_of(name)} is no place in {kind_of(held)}")


def piece(meter: Meter, held: Any, bounds: slice) -> Any:
    """A slice of a text or a list.

    Raises:
        RowFault: the value is neither, or the bounds are no integers.
    """
    if held is None or held is MISSING:
        return MISSING
    if not isinstance(held, str | list):
        raise RowFault(f"{kind_of(held)} cannot be cut into pieces")
    for bound in (bounds.start, bounds.stop, bounds.step):
        if bound is not None and type(bound) is not int:
            raise RowFault(f"{kind_of(bound)} is no place to cut at")
    if bounds.step == 0:
        raise RowFault("pieces cannot be cut in steps of zero")
    count = len(range(*bounds.indices(len(held))))
    meter.spend(count if isinstance(held, str) else ENTRY * count)
    return held[bounds]


def entries(meter: Meter, value: Any) -> list[Any]:
    """What a loop goes over: items of a list, names of an object, characters of a text.

    Raises:
        RowFault: the value has no entries, or too many.
    """
    if isinstance(value, list):
        return value
    if value is None or value is MISSING:
        return []
    if isinstance(value, dict | str):
        meter.spend(ENTRY * len(value))
        return list(value)
    raise RowFault(f"{kind_of(value)} has no entries to go over")
