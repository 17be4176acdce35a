"""Values as JSON, none changed. JSON lacks NaN and the infinities, which Python's JSON has."""

import math
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec


def json_bytes(value: Any) -> bytes:
    """A value of Python's JSON as JSON: floats as `json_float` has them, wherever they stand."""
    encoded = msgspec.json.encode(value)
    # What JSON lacks was written as null; so nearly all values need no second look.
    if b"null" not in encoded:
        return encoded
    return msgspec.json.encode(with_leaves(value, _text_if_lacking))


def json_float(value: float) -> float | str:
    """A float, or ``"NaN"``, ``"Infinity"`` or ``"-Infinity"`` for those that JSON lacks."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def exact_float(number: msgspec.Raw) -> float | None:
    """The float that a number of JSON is, or ``None`` where the closest one has other digits."""
    digits = bytes(number)
    value = float(digits)
    shortest = msgspec.json.encode(value)  # faster than Python's repr
    if shortest == digits:
        return value
    try:
        same = Decimal(shortest.decode()) == Decimal(digits.decode())
    except InvalidOperation:  # an exponent beyond a decimal's
        return None
    return value if same else None


def with_leaves(value: Any, leaf: Callable[[Any], Any], name: Callable[[str], str] = str) -> Any:
    """A value of JSON with ``leaf`` of all that is neither list nor object, and ``name`` of all
    names, however deeply it is nested."""
    root = [value]
    todo: list[Any] = [root]
    while todo:
        held = todo.pop()  # a copy whose items are still the original's
        for key, item in held.items() if isinstance(held, dict) else enumerate(held):
            if isinstance(item, dict):
                held[key] = {name(own): inner for own, inner in item.items()}
            elif isinstance(item, list):
                held[key] = item.copy()
            else:
                held[key] = leaf(item)
                continue
            todo.append(held[key])
    return root[0]


def _text_if_lacking(value: Any) -> Any:
    return json_float(value) if isinstance(value, float) else value
