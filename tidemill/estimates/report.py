"""An estimate as a command tells it: figures, and from what each of them is known."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from msgspec import Struct, structs

from tidemill.client.shapes import Estimate, Volume
from tidemill.run.progress import duration

HEADERS = ("figure", "value", "from")
# Devices are rated with all that makes them fast or slow; a batch may have run on several.
_SOURCES = {
    "sample": "{rows:,} rows of this input, really run",
    "history": "{rows:,} rows of earlier jobs of this kind",
    "limit": "the limits alone, so at most this; --sample 50 tells more",
}


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user wants to know beside.

    Attributes:
        deadline: when it is to be done.
        price_per_hour: of a device; ``None`` leaves it to the service.
    """

    deadline: datetime | None = None
    price_per_hour: float | None = None


class Told(Struct, frozen=True):
    """What ``--json`` prints: the estimate, for which input, and what was asked beside."""

    input: str
    batch_id: str
    estimate: Estimate
    sample_id: str | None = None
    deadline: int | None = None
    meets_deadline: list[bool] | None = None


def priced(estimate: Estimate, price_per_hour: float | None) -> Estimate:
    """The estimate at this price; without one, at the service's, if it has one."""
    if price_per_hour is None:
        return estimate
    volumes = [
        structs.replace(each, cost=round(each.device_seconds / 3600 * price_per_hour, 4))
        for each in estimate.volumes
    ]
    return structs.replace(estimate, volumes=volumes)


def meets(volume: Volume, deadline: datetime) -> bool:
    """Whether so much would be done in time."""
    return volume.finish_at is not None and volume.finish_at <= deadline.timestamp()


def rows_of(estimate: Estimate, deadline: datetime | None) -> Iterator[tuple[str, str, str]]:
    """The rows of the table: what, how much, and from what that is known."""
    bad = f", of which {estimate.invalid_rows:,} cannot be run" if estimate.invalid_rows else ""
    yield "rows", f"{estimate.rows:,}{bad}", "counted"
    yield "prompt tokens", f"{estimate.prompt_tokens:,}", "counted"
    yield (
        "duplicates",
        f"{estimate.duplicate_rows:,} rows, {estimate.duplicate_tokens:,} prompt tokens saved",
        "counted",
    )
    share = estimate.prefix_tokens / max(1, estimate.prompt_tokens)
    yield (
        "shared prefixes",
        f"{estimate.prefix_tokens:,} prompt tokens saved ({share:.1%})",
        ("counted"),
    )
    output = estimate.output_tokens
    yield (
        "output tokens",
        f"{output.expected:,} ({output.low:,} to {output.high:,})",
        _SOURCES[output.source].format(rows=output.rows_seen),
    )
    time = estimate.device_seconds
    yield (
        "device time",
        f"{_long(time.expected)} ({_long(time.low)} to {_long(time.high)})",
        _timed_on(estimate),
    )
    if estimate.start_seconds > 0:
        yield "engine's start", _long(estimate.start_seconds), "the size of the model"
    if estimate.ahead_seconds > 0:
        yield "waits first", _long(estimate.ahead_seconds), "the estimates of jobs that run before"
    for volume in estimate.volumes:
        yield from _volume(volume, deadline)


def _volume(volume: Volume, deadline: datetime | None) -> Iterator[tuple[str, str, str]]:
    cost = "" if volume.cost is None else f", costs {_money(volume.cost)}"
    done = "" if volume.finish_at is None else f", done {_clock(volume.finish_at)}"
    late = ""
    if deadline is not None:
        late = ", in time" if meets(volume, deadline) else ", TOO LATE"
    said = f"{_long(volume.seconds)}{done}{cost}{late}"
    yield f"{volume.volume}× the rows", said, "" if deadline is None else _until(deadline)


def _timed_on(estimate: Estimate) -> str:
    time = estimate.device_seconds
    where = "; ".join(time.devices)
    if time.source == "measured":
        jobs = f"{time.runs_seen:,} {'job' if time.runs_seen == 1 else 'jobs'}"
        return f"what {jobs} took on {where}"
    return f"a roofline of {where or 'the device'}: never measured here"


def _long(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else duration(seconds)


def _money(cost: float) -> str:
    return f"{cost:,.2f}" if cost >= 1 or not cost else f"{cost:.3g}"


def _clock(at: int) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M")


def _until(deadline: datetime) -> str:
    return f"the deadline {deadline.strftime('%Y-%m-%d %H:%M')}"
