"""When something is to be done, as people write it."""

import re
from datetime import datetime, timedelta

EXPECTED = (
    "a time of day such as 06:00, a date and time such as 2026-11-28T06:00, or a time from now "
    "such as 90m, 2h or 3d"
)
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_FROM_NOW = re.compile(r"([1-9]\d{0,4})([mhd])\Z", re.ASCII)
_TIME_OF_DAY = re.compile(r"(\d{1,2}):(\d{2})\Z", re.ASCII)


def parse_deadline(text: str, now: datetime) -> datetime:
    """The time that is meant; a time of day is the next one, in the time zone of ``now``.

    Raises:
        ValueError: it is none, or has passed; the message says so in plain words.
    """
    if found := _FROM_NOW.match(text):
        return now + timedelta(**{_UNITS[found[2]]: int(found[1])})
    if found := _TIME_OF_DAY.match(text):
        return _next(int(found[1]), int(found[2]), text, now)
    try:
        meant = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not {EXPECTED}.") from None
    meant = meant.astimezone(now.tzinfo) if meant.tzinfo else meant.replace(tzinfo=now.tzinfo)
    if meant <= now:
        raise ValueError(f"{text!r} has passed.")
    return meant


def _next(hour: int, minute: int, text: str, now: datetime) -> datetime:
    try:
        meant = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    except ValueError:
        raise ValueError(f"{text!r} is not {EXPECTED}.") from None
    return meant if meant > now else meant + timedelta(days=1)
