"""Past jobs: what was expected of each, beside what it took."""

from collections.abc import Iterable

from msgspec import Struct

from tidemill.client.shapes import Batch
from tidemill.estimates.ask import SAMPLE_MARK

HEADERS = (
    *("id", "input", "rows"),
    *("output tokens", "expected", "ratio"),
    *("device time", "expected", "ratio"),
    "known from",
)


class PastJob(Struct, frozen=True):
    """One job that has ended. A ratio is what was expected, divided by what came."""

    id: str
    input: str
    rows: int
    output_tokens: int
    expected_output_tokens: int
    output_ratio: float | None
    device_seconds: float
    expected_device_seconds: float
    device_ratio: float | None
    lengths_from: str
    rates_from: str

    @property
    def cells(self) -> tuple[str, ...]:
        """A row of the table."""
        return (
            self.id,
            self.input,
            f"{self.rows:,}",
            f"{self.output_tokens:,}",
            f"{self.expected_output_tokens:,}",
            _shown(self.output_ratio),
            f"{self.device_seconds:,.1f} s",
            f"{self.expected_device_seconds:,.1f} s",
            _shown(self.device_ratio),
            f"{self.lengths_from}, {self.rates_from}",
        )


def past_jobs(batches: Iterable[Batch]) -> list[PastJob]:
    """Of these batches, those that were estimated and run to their end; samples are left out."""
    return [
        _past(batch)
        for batch in batches
        if batch.status == "completed" and not SAMPLE_MARK.items() <= (batch.metadata or {}).items()
        if batch.estimate is not None and batch.estimate.actual is not None
    ]


def _past(batch: Batch) -> PastJob:
    estimate = batch.estimate
    assert estimate is not None
    assert estimate.actual is not None
    actual, output, time = estimate.actual, estimate.output_tokens, estimate.device_seconds
    return PastJob(
        id=batch.id,
        input=(batch.metadata or {}).get("input", ""),
        rows=estimate.rows,
        output_tokens=actual.output_tokens,
        expected_output_tokens=output.expected,
        output_ratio=_ratio(output.expected, actual.output_tokens),
        device_seconds=actual.device_seconds,
        expected_device_seconds=time.expected,
        device_ratio=_ratio(time.expected, actual.device_seconds),
        lengths_from=output.source,
        rates_from=time.source,
    )


def _ratio(expected: float, came: float) -> float | None:
    return round(expected / came, 3) if came > 0 else None


def _shown(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"
