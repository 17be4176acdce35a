"""Values as JSON, none changed. JSON lacks NaN and the infinities, which Python's JSON has."""

import math
from typing import Any

import msgspec


def json_bytes(value: Any) -> bytes:
    """A value of Python's JSON as JSON: floats as `json_float` has them, wherever they stand."""
    encoded = msgspec.json.encode(value)
    # What JSON lacks was written as null; so nearly all values need no second look.
    return msgspec.json.encode(_with_texts(value)) if b"null" in encoded else encoded


def json_float(value: float) -> float | str:
    """A float, or ``"NaN"``, ``"Infinity"`` or ``"-Infinity"`` for those that JSON lacks."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _with_texts(value: Any) -> Any:
    if isinstance(value, float):
        return json_float(value)
    if isinstance(value, dict):
        return {name: _with_texts(held) for name, held in value.items()}
    return [_with_texts(item) for item in value] if isinstance(value, list) else value
