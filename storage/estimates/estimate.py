"""What a job is expected to cost, put together from its plan, lengths and rates."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from storage.estimates.lengths import Lengths
from storage.estimates.rates import Rates
from storage.estimates.work import PlannedWork, Room, Work, expected_work

VOLUMES = (1, 2, 3)


@dataclass(frozen=True, slots=True)
class ModelOutlook:
    """What one model has to do in a job, and what is known of it.

    Attributes:
        device: what its rates were learned on, or what the roofline is of.
        lengths: of the outputs of a row.
        start_seconds: of an engine of the model, where none runs.
    """

    planned: PlannedWork
    lengths: Lengths
    rates: Rates
    room: Room
    device: str
    start_seconds: float = 0.0

    def seconds(self, tokens_a_row: float, times: int = 1) -> float:
        """Device time of so many such jobs, if a row's outputs have so many tokens."""
        return self.rates.seconds(self.work(tokens_a_row, times))

    def work(self, tokens_a_row: float, times: int = 1) -> Work:
        """What is to be done then."""
        planned = self.planned
        outputs_a_row = planned.outputs / planned.distinct_lines if planned.distinct_lines else 1.0
        mean = tokens_a_row / outputs_a_row
        longest = max(mean, min(self.lengths.longest, planned.longest))
        first = self.lengths.cut
        return expected_work(planned, mean, longest, self.room, times, longest_first=first)


def estimate(
    models: Sequence[ModelOutlook],
    *,
    invalid_lines: int,
    engines: int = 1,
    ahead_seconds: float = 0.0,
    price_per_hour: float | None = None,
) -> dict[str, Any]:
    """The estimate as it is kept with its job, and as the API shows it.

    Args:
        models: those that the job's lines name.
        engines: how many run side by side.
        ahead_seconds: how long they have to do with what comes before.
        price_per_hour: of one engine's device, if it has one.

    Returns:
        JSON. Counts of rows and prompt tokens are exact. ``prefix_tokens`` and ``duplicate_tokens``
        are prompt tokens that need not be computed. ``volumes`` has the time, too, of two and of
        three times as many such rows.
    """
    works = [model.planned for model in models]
    expected = sum(model.seconds(model.lengths.mean) for model in models)
    low = sum(model.seconds(model.lengths.low) / (1 + model.rates.spread) for model in models)
    high = sum(model.seconds(model.lengths.high) * (1 + model.rates.spread) for model in models)
    runs = [model.rates.runs for model in models]
    return {
        "rows": sum(work.lines for work in works) + invalid_lines,
        "invalid_rows": invalid_lines,
        "duplicate_rows": sum(work.lines - work.distinct_lines for work in works),
        "prompt_tokens": sum(work.prompt_tokens for work in works),
        "duplicate_tokens": sum(work.prompt_tokens - work.distinct_tokens for work in works),
        "prefix_tokens": sum(work.shared_tokens for work in works),
        "output_tokens": _output_tokens(models),
        "device_seconds": {
            "expected": round(expected, 3),
            "low": round(low, 3),
            "high": round(high, 3),
            "source": "measured" if runs and all(runs) else "roofline",
            "runs_seen": min(runs, default=0),
            "devices": sorted({model.device for model in models}),
        },
        "prompt_seconds": round(
            sum(model.rates.prompt_seconds(model.work(model.lengths.mean)) for model in models), 3
        ),
        "engines": engines,
        "start_seconds": round(sum(model.start_seconds for model in models), 3),
        "ahead_seconds": round(ahead_seconds, 3),
        "volumes": [_volume(models, invalid_lines, engines, times) for times in VOLUMES],
        "price_per_hour": price_per_hour,
    }


def _output_tokens(models: Sequence[ModelOutlook]) -> dict[str, Any]:
    def tokens(of_a_row: Callable[[Lengths], float]) -> int:
        return round(sum(model.planned.lines * of_a_row(model.lengths) for model in models))

    return {
        "expected": tokens(lambda lengths: lengths.mean),
        "low": tokens(lambda lengths: lengths.low),
        "high": tokens(lambda lengths: lengths.high),
        "most": sum(model.planned.limit_tokens for model in models),
        "source": models[0].lengths.source.value if models else "limit",
        "rows_seen": models[0].lengths.rows if models else 0,
    }


def _volume(
    models: Sequence[ModelOutlook], invalid_lines: int, engines: int, times: int
) -> dict[str, Any]:
    device_seconds = sum(model.seconds(model.lengths.mean, times) for model in models)
    tokens = sum(model.planned.lines * model.lengths.mean for model in models)
    rows = sum(model.planned.lines for model in models) + invalid_lines
    start_seconds = sum(model.start_seconds for model in models)
    return {
        "volume": times,
        "rows": rows * times,
        "output_tokens": round(tokens * times),
        "device_seconds": round(device_seconds, 3),
        "seconds": round(start_seconds + device_seconds / engines, 3),
    }
