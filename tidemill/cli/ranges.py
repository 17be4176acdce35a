"""Values with limits, as the command line takes them: the limits are said in plain words."""

from collections.abc import Callable
from typing import TypeVar

import typer

Number = TypeVar("Number", int, float)


def between(low: Number, high: Number) -> Callable[[Number | None], Number | None]:
    """A check of an option that may be left out; refuses what is not a number, too."""
    return _check(low, high, f"between {low:g} and {high:g}")


def at_least(low: Number) -> Callable[[Number | None], Number | None]:
    """A check of an option that may be left out, and has no upper limit."""
    return _check(low, None, f"{low:g} or more")


def above_zero_to(high: float) -> Callable[[float | None], float | None]:
    """A check of an option that may be left out, and may not be zero."""

    def check(value: float | None) -> float | None:
        if value is None or 0 < value <= high:
            return value
        raise typer.BadParameter(f"{value} is not above 0 and at most {high:g}.")

    return check


def completion_window(value: str | None) -> str | None:
    """A check of the time that a batch may take, which may be left out: the service's own."""
    if value is None:
        return None
    # Every command imports this file, and few of them need these.
    from pydantic_core import PydanticCustomError

    from api.schemas.batch_create import parse_window

    try:
        parse_window(value)
    except PydanticCustomError as error:
        raise typer.BadParameter(
            f"{value!r} is not a number of hours or days such as 24h or 7d, at most 365d."
        ) from error
    return value


def _check(
    low: Number, high: Number | None, words: str
) -> Callable[[Number | None], Number | None]:
    def check(value: Number | None) -> Number | None:
        # Written so that what is no number (nan) is refused.
        if value is None or (low <= value and (high is None or value <= high)):
            return value
        raise typer.BadParameter(f"{value} is not {words}.")

    return check
