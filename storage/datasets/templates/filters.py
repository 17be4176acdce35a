"""Filters, methods and tests of templates: all that a template can call, each within bounds.

The first argument is the meter, the second the value. Filters that work on texts take the text that
a value has in a template, so null is the empty text for them.
"""

import math
from collections.abc import Callable
from typing import Any, Final

import msgspec

from storage.datasets.templates.limits import ENTRY, Meter
from storage.datasets.templates.operations import checked, concat, number_of
from storage.datasets.templates.plain_data import (
    MISSING,
    entries,
    float_of,
    json_text,
    kind_of,
    member,
    or_null,
    text_of,
    weigh,
)
from storage.datasets.templates.texts import TEXT_METHODS
from storage.errors import RowFault

MAX_RANGE: Final = 10_000
_MAX_NUMERAL: Final = 300  # characters of a text that is read as a number
_MAX_PRECISION: Final = 20
_MAX_INDENT, _MAX_INDENTED_DEPTH = 8, 64

Function = Callable[..., Any]

_JSON: Final = msgspec.json.Decoder(float_hook=msgspec.Raw)


def _default(meter: Meter, value: Any, default_value: Any = "", boolean: bool = False) -> Any:
    absent = value is None or value is MISSING
    return default_value if absent or (boolean and not value) else value


def _join(meter: Meter, value: Any, d: str = "", attribute: Any = None) -> str:
    items = _attributes(meter, entries(meter, value), attribute)
    meter.spend(ENTRY * len(items))
    return concat(meter, [text_of(meter, item) for item in items], text_of(meter, d))


def _attributes(meter: Meter, items: list[Any], attribute: Any) -> list[Any]:
    if attribute is None:
        return items
    names = [attribute]
    if isinstance(attribute, str):
        meter.spend(ENTRY * len(attribute) * (1 + len(items)))
        names = [int(name) if name.isdecimal() else name for name in attribute.split(".")]
    found = items
    for name in names:
        meter.spend(ENTRY * len(found))
        found = [or_null(member(item, name)) for item in found]
    return found


def _map(meter: Meter, value: Any, *, attribute: str) -> list[Any]:
    return _attributes(meter, entries(meter, value), attribute)


def _first(meter: Meter, value: Any) -> Any:
    items = value if isinstance(value, str) else entries(meter, value)
    return items[0] if items else MISSING


def _last(meter: Meter, value: Any) -> Any:
    items = value if isinstance(value, str) else entries(meter, value)
    return items[-1] if items else MISSING


def _length(meter: Meter, value: Any) -> int:
    if isinstance(value, str | list | dict):
        return len(value)
    if or_null(value) is None:
        return 0
    raise RowFault(f"{kind_of(value)} has no length")


def _list(meter: Meter, value: Any) -> list[Any]:
    return entries(meter, value)


def _reverse(meter: Meter, value: Any) -> Any:
    held = value if isinstance(value, str) else entries(meter, value)
    meter.spend(ENTRY * len(held))
    return held[::-1]


def _sort(
    meter: Meter,
    value: Any,
    reverse: bool = False,
    case_sensitive: bool = False,
    attribute: Any = None,
) -> list[Any]:
    items = entries(meter, value)
    ranks = _attributes(meter, items, attribute)
    for _ in range(len(items).bit_length()):  # every item is compared about so often
        weigh(meter, ranks)
    if all(isinstance(rank, str) for rank in ranks):
        ranks = ranks if case_sensitive else [rank.lower() for rank in ranks]
    else:
        ranks = [number_of(rank) for rank in ranks]
    order = sorted(range(len(items)), key=ranks.__getitem__, reverse=bool(reverse))
    return [items[place] for place in order]


def _items(meter: Meter, value: Any) -> list[list[Any]]:
    held = _object(value)
    meter.spend(ENTRY * len(held))
    return [[name, item] for name, item in held.items()]


def _names(meter: Meter, value: Any) -> list[Any]:
    return entries(meter, _object(value))


def _values(meter: Meter, value: Any) -> list[Any]:
    held = _object(value)
    meter.spend(ENTRY * len(held))
    return list(held.values())


def _get(meter: Meter, value: Any, name: Any, default: Any = None) -> Any:
    return _object(value).get(name, default) if isinstance(name, str) else default


def _object(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    if or_null(value) is None:
        return {}
    raise RowFault(f"{kind_of(value)} is no object")


def _int(meter: Meter, value: Any, default: Any = 0) -> Any:
    try:
        return checked(int(value) if _is_integer(value) else int(_float_of(value)))
    except (ValueError, OverflowError):
        return default


def _float(meter: Meter, value: Any, default: Any = 0.0) -> Any:
    try:
        number = _float_of(value)
    except (ValueError, OverflowError):
        return default
    return number if math.isfinite(number) else default


def _is_integer(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= _MAX_NUMERAL and value.strip().lstrip("+-").isdecimal()
    return isinstance(value, int)


def _float_of(value: Any) -> float:
    if isinstance(value, msgspec.Raw):
        return float_of(value)
    if isinstance(value, str):
        return float(value if len(value) <= _MAX_NUMERAL else "")
    return float(value) if isinstance(value, int | float) else float("")


def _round(meter: Meter, value: Any, precision: int = 0, method: str = "common") -> int | float:
    number = number_of(value)
    if type(precision) is not int or abs(precision) > _MAX_PRECISION:
        raise RowFault(f"numbers are rounded to at most {_MAX_PRECISION} digits")
    if method == "common":
        return checked(round(number, precision))
    if method not in ("ceil", "floor"):
        raise RowFault("numbers are rounded by 'common', 'ceil' or 'floor'")
    scale = 10.0**precision
    rounded = math.ceil(number * scale) if method == "ceil" else math.floor(number * scale)
    return checked(rounded / scale)


def _abs(meter: Meter, value: Any) -> int | float:
    return abs(number_of(value))


def _tojson(meter: Meter, value: Any, indent: int | None = None) -> str:
    text = json_text(meter, value)
    if indent is None:
        return text
    if type(indent) is not int or not 0 < indent <= _MAX_INDENT:
        raise RowFault(f"JSON is indented by 1 to {_MAX_INDENT} characters")
    if _is_deeper(value, _MAX_INDENTED_DEPTH):
        raise RowFault("a value is nested too deeply to be indented")
    meter.spend_text(len(text) * (1 + indent))
    indented = msgspec.json.format(text, indent=indent)
    meter.spend_text(len(indented))
    return indented


def _fromjson(meter: Meter, value: Any) -> Any:
    text = text_of(meter, value)
    meter.spend(ENTRY * len(text) // 2)  # of the most values that it can hold
    try:
        return _JSON.decode(text)
    except msgspec.MsgspecError:
        raise RowFault("a text is not the JSON that it should be") from None


def _is_deeper(value: Any, most: int) -> bool:
    level = [value]
    for _ in range(most):
        level = [
            item
            for held in level
            if isinstance(held, dict | list)
            for item in (held.values() if isinstance(held, dict) else held)
        ]
        if not level:
            return False
    return True


def make_range(meter: Meter, start: Any, stop: Any = None, interval: Any = 1) -> list[int]:
    """The integers from ``start`` to before ``stop``, or from 0 to before ``start`` alone.

    Raises:
        RowFault: they are too many, or the bounds are no integers.
    """
    bounds = (0, start, 1) if stop is None else (start, stop, interval)
    if any(type(bound) is not int or abs(bound) >= 2**63 for bound in bounds) or not bounds[2]:
        raise RowFault("a range goes from integer to integer, by any integer but zero")
    numbers = range(*bounds)
    if numbers[MAX_RANGE : MAX_RANGE + 1]:
        raise RowFault(f"a range has more than {MAX_RANGE:,} numbers")
    meter.spend(ENTRY * len(numbers))
    return list(numbers)


FILTERS: Final[dict[str, Function]] = {
    "abs": _abs,
    "capitalize": TEXT_METHODS["capitalize"],
    "count": _length,
    "d": _default,
    "default": _default,
    "first": _first,
    "float": _float,
    "fromjson": _fromjson,
    "int": _int,
    "items": _items,
    "join": _join,
    "last": _last,
    "length": _length,
    "list": _list,
    "lower": TEXT_METHODS["lower"],
    "map": _map,
    "replace": TEXT_METHODS["replace"],
    "reverse": _reverse,
    "round": _round,
    "sort": _sort,
    "string": text_of,
    "title": TEXT_METHODS["title"],
    "tojson": _tojson,
    "trim": TEXT_METHODS["strip"],
    "truncate": TEXT_METHODS["truncate"],
    "upper": TEXT_METHODS["upper"],
}

METHODS: Final[dict[str, Function]] = {
    **{name: each for name, each in TEXT_METHODS.items() if name != "truncate"},
    "get": _get,
    "items": _items,
    "keys": _names,
    "values": _values,
}

TESTS: Final[dict[str, Function]] = {
    "boolean": lambda meter, value: isinstance(value, bool),
    "defined": lambda meter, value: value is not MISSING,
    "even": lambda meter, value: number_of(value) % 2 == 0,
    "false": lambda meter, value: value is False,
    "integer": lambda meter, value: type(value) is int,
    "mapping": lambda meter, value: isinstance(value, dict),
    "none": lambda meter, value: or_null(value) is None,
    "number": lambda meter, value: (
        isinstance(value, int | float | msgspec.Raw) and not isinstance(value, bool)
    ),
    "odd": lambda meter, value: number_of(value) % 2 == 1,
    "sequence": lambda meter, value: isinstance(value, list | str | dict),
    "string": lambda meter, value: isinstance(value, str),
    "true": lambda meter, value: value is True,
    "undefined": lambda meter, value: value is MISSING,
}
