"""When something is to be done, as people write it."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from tidemill.estimates.deadline import parse_deadline

ZONE = timezone(timedelta(hours=2))
NOW = datetime(2026, 11, 27, 22, 30, tzinfo=ZONE)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("06:00", datetime(2026, 11, 28, 6, 0, tzinfo=ZONE)),
        ("6:00", datetime(2026, 11, 28, 6, 0, tzinfo=ZONE)),
        ("23:00", datetime(2026, 11, 27, 23, 0, tzinfo=ZONE)),
        ("22:30", datetime(2026, 11, 28, 22, 30, tzinfo=ZONE)),
        ("90m", datetime(2026, 11, 28, 0, 0, tzinfo=ZONE)),
        ("2h", datetime(2026, 11, 28, 0, 30, tzinfo=ZONE)),
        ("3d", datetime(2026, 11, 30, 22, 30, tzinfo=ZONE)),
        ("2026-11-28T06:00", datetime(2026, 11, 28, 6, 0, tzinfo=ZONE)),
        ("2026-11-28 06:00", datetime(2026, 11, 28, 6, 0, tzinfo=ZONE)),
        ("2026-11-28T06:00Z", datetime(2026, 11, 28, 6, 0, tzinfo=UTC)),
    ],
)
def test_what_is_meant(text: str, meant: datetime) -> None:
    found = parse_deadline(text, NOW)
    assert found == meant
    assert found.utcoffset() == timedelta(hours=2)


@pytest.mark.parametrize(
    "text",
    ["", "soon", "24:00", "06:60", "0h", "-2h", "2", "2 h", "٣h", "999999d", "2026-13-01", "nan"],
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a time of day such as 06:00"):
        parse_deadline(text, NOW)


@pytest.mark.parametrize("text", ["2026-11-27T22:00", "2026-11-27T20:30Z", "1999-01-01"])
def test_what_has_passed(text: str) -> None:
    with pytest.raises(ValueError, match="has passed"):
        parse_deadline(text, NOW)
