"""Operators of templates, each within bounds: numbers with numbers, texts with texts."""

import math
import operator
from collections.abc import Callable
from typing import Any, Final

import msgspec

from storage.datasets.templates.limits import ENTRY, Meter
from storage.datasets.templates.plain_data import float_of, kind_of, or_null, weigh
from storage.errors import RowFault

Binary = Callable[[Meter, Any, Any], Any]

MAX_BITS: Final = 1_024


def number_of(value: Any) -> int | float:
    """A value's number.

    Raises:
        RowFault: it is none.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if isinstance(value, msgspec.Raw):
        return float_of(value)
    raise RowFault(f"{kind_of(value)} is no number")


def checked(number: Any) -> int | float:
    """A number that was computed.

    Raises:
        RowFault: it is out of range, or not real.
    """
    if isinstance(number, int) and number.bit_length() <= MAX_BITS:
        return number
    if isinstance(number, float) and math.isfinite(number):
        return number
    raise RowFault("a number is out of range")


def _arithmetic(operate: Callable[[Any, Any], Any]) -> Binary:
    def run(meter: Meter, left: Any, right: Any) -> int | float:
        return checked(operate(number_of(left), number_of(right)))

    return run


def _add(meter: Meter, left: Any, right: Any) -> Any:
    if isinstance(left, str) and isinstance(right, str):
        meter.spend_text(len(left) + len(right))
        return left + right
    if isinstance(left, list) and isinstance(right, list):
        meter.spend(ENTRY * (len(left) + len(right)))
        return left + right
    if isinstance(left, str) or isinstance(right, str):
        raise RowFault(f"{kind_of(left)} and {kind_of(right)} cannot be added; ~ joins texts")
    return checked(number_of(left) + number_of(right))


def _multiply(meter: Meter, left: Any, right: Any) -> Any:
    if isinstance(left, str) and type(right) is int:
        meter.spend_text(len(left) * max(right, 0))
        return left * right
    if isinstance(right, str) and type(left) is int:
        return _multiply(meter, right, left)
    return checked(number_of(left) * number_of(right))


def _power(meter: Meter, left: Any, right: Any) -> int | float:
    base, exponent = number_of(left), number_of(right)
    if isinstance(base, int) and isinstance(exponent, int):
        if base.bit_length() * exponent > MAX_BITS:
            raise RowFault("a number is out of range")
        if exponent < 0:
            base = float(base)
    return checked(base**exponent)


BINARY: Final[dict[str, Binary]] = {
    "+": _add,
    "-": _arithmetic(operator.sub),
    "*": _multiply,
    "/": _arithmetic(operator.truediv),
    "//": _arithmetic(operator.floordiv),
    "%": _arithmetic(operator.mod),
    "**": _power,
}


def equal(meter: Meter, left: Any, right: Any) -> bool:
    """Whether two values are the same; numbers are compared as numbers."""
    if isinstance(left, str) and isinstance(right, str):
        meter.spend(min(len(left), len(right)))
    elif isinstance(left, list | dict) and isinstance(right, list | dict):
        weigh(meter, left)
    return bool(_comparable(left) == _comparable(right))


def _unequal(meter: Meter, left: Any, right: Any) -> bool:
    return not equal(meter, left, right)


def _ordered(compare: Callable[[Any, Any], bool]) -> Binary:
    def run(meter: Meter, left: Any, right: Any) -> bool:
        if isinstance(left, str) and isinstance(right, str):
            meter.spend(min(len(left), len(right)))
            return compare(left, right)
        if isinstance(left, str) or isinstance(right, str):
            raise RowFault(f"{kind_of(left)} and {kind_of(right)} have no order")
        return compare(number_of(left), number_of(right))

    return run


def contains(meter: Meter, value: Any, held: Any) -> bool:
    """Whether a text, a list or an object holds a value; nothing is in null.

    Raises:
        RowFault: nothing can be in such a value.
    """
    if isinstance(held, str) and isinstance(value, str):
        meter.spend(len(held) + len(value))
        return value in held
    if isinstance(held, list):
        weigh(meter, held)
        return _comparable(value) in held
    if isinstance(held, dict):
        return isinstance(value, str) and value in held
    if or_null(held) is None:
        return False
    raise RowFault(f"{kind_of(value)} cannot be in {kind_of(held)}")


def _absent(meter: Meter, value: Any, held: Any) -> bool:
    return not contains(meter, value, held)


def _comparable(value: Any) -> Any:
    return float_of(value) if isinstance(value, msgspec.Raw) else or_null(value)


COMPARISONS: Final[dict[str, Binary]] = {
    "eq": equal,
    "ne": _unequal,
    "lt": _ordered(operator.lt),
    "lteq": _ordered(operator.le),
    "gt": _ordered(operator.gt),
    "gteq": _ordered(operator.ge),
    "in": contains,
    "notin": _absent,
}


def concat(meter: Meter, texts: list[str], between: str = "") -> str:
    """Texts as one.

    Raises:
        RowFault: it is too long.
    """
    meter.spend_text(sum(map(len, texts)) + len(between) * max(len(texts) - 1, 0))
    return between.join(texts)
