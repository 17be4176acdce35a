"""Dates, times and durations as ISO 8601 text, from the integers that columnar formats keep.

Python's own types end at microseconds and at the year 9999; these do not. A fraction has no digits
where it is zero, six where they hold it, and nine otherwise.
"""

from datetime import date, datetime, timedelta, tzinfo
from typing import Literal

Unit = Literal["s", "ms", "us", "ns"]

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_NANOSECONDS = 10**9
_DAY_SECONDS = 86_400
_EPOCH = date(1970, 1, 1).toordinal()
# The Gregorian calendar repeats itself after so many years, which are so many days.
_CYCLE_YEARS, _CYCLE_DAYS = 400, 146_097


def date_text(days: int) -> str:
    """A date from its days since 1970-01-01; years of the Gregorian calendar, also before it."""
    cycles, rest = divmod(days, _CYCLE_DAYS)
    day = date.fromordinal(_EPOCH + rest)
    year = day.year + cycles * _CYCLE_YEARS
    return f"{'-' if year < 0 else ''}{abs(year):04}-{day.month:02}-{day.day:02}"


def time_text(value: int, unit: Unit) -> str:
    """A time of day from what has passed since midnight."""
    seconds, part = divmod(abs(value), _PER_SECOND[unit])
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    sign = "-" if value < 0 else ""
    return f"{sign}{hour:02}:{minute:02}:{second:02}{_fraction(part, unit)}"


def timestamp_text(value: int, unit: Unit, zone: tzinfo | None = None) -> str:
    """A date and time from what has passed since 1970-01-01T00:00.

    Args:
        zone: where the value is an instant: the zone whose time is written, with its offset. An
            instant outside the years 1 to 9999, or with an offset of odd seconds, is written in
            UTC.
    """
    seconds, part = divmod(value, _PER_SECOND[unit])
    minutes = _offset_minutes(seconds, zone)
    days, second = divmod(seconds + 60 * minutes, _DAY_SECONDS)
    text = f"{date_text(days)}T{time_text(second, 's')}{_fraction(part, unit)}"
    if zone is None:
        return text
    if not minutes:
        return f"{text}Z"
    hour, minute = divmod(abs(minutes), 60)
    return f"{text}{'-' if minutes < 0 else '+'}{hour:02}:{minute:02}"


def duration_text(value: int, unit: Unit) -> str:
    """A duration in days and seconds, as ``P1DT3600.5S``."""
    seconds, part = divmod(abs(value), _PER_SECOND[unit])
    days, second = divmod(seconds, _DAY_SECONDS)
    time = f"T{second}{_fraction(part, unit)}S" if second or part else ""
    whole = f"{days}D" if days or not time else ""
    return f"{'-' if value < 0 else ''}P{whole}{time}"


def _fraction(part: int, unit: Unit) -> str:
    nanoseconds = part * (_NANOSECONDS // _PER_SECOND[unit])
    if nanoseconds % 1000:
        return f".{nanoseconds:09}"
    return f".{nanoseconds // 1000:06}" if nanoseconds else ""


def _offset_minutes(seconds: int, zone: tzinfo | None) -> int:
    if zone is None:
        return 0
    try:
        offset = datetime.fromtimestamp(seconds, zone).utcoffset()
    except (ValueError, OverflowError, OSError):
        return 0
    minutes, rest = divmod(offset or timedelta(0), timedelta(minutes=1))
    return 0 if rest else minutes
