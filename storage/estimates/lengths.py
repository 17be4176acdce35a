"""How long outputs are expected to be, and from what that is known."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean, stdev

# The least that a mean may be off, as a share of it.
_SAMPLE_SPREAD, _HISTORY_SPREAD, _ONE_JOB_SPREAD = 0.02, 0.1, 0.3
# Where outputs come so near to their limits, it is the limits that end them.
_CUT_SHARE = 0.8


class LengthSource(StrEnum):
    """From what lengths are known: rows of this input, earlier such jobs, or only the limits."""

    SAMPLE = "sample"
    HISTORY = "history"
    LIMIT = "limit"


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that the outputs of a job may take, in tokens: in the mean of a row, and at most."""

    mean: float
    longest: float


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of the outputs of a row.

    Attributes:
        mean, low, high: what a row has on the average, and between what that may lie.
        longest: of the longest output.
        rows: on how many this was seen.
        cut: whether it is their limits that end outputs, as far as is known.
    """

    mean: float
    low: float
    high: float
    longest: float
    source: LengthSource
    rows: int = 0
    cut: bool = False

    def within(self, limits: Limits) -> "Lengths":
        """The same, none above the limits."""
        most = limits.mean
        return Lengths(
            min(self.mean, most),
            min(self.low, most),
            min(self.high, most),
            max(min(self.longest, limits.longest), min(self.mean, most)),
            self.source,
            self.rows,
            self.cut,
        )


@dataclass(frozen=True, slots=True)
class Seen:
    """What one earlier job's rows had: tokens in all, and what they could have had at most."""

    rows: int
    tokens: int
    limit_tokens: int

    @property
    def mean(self) -> float:
        """Tokens of a row."""
        return self.tokens / self.rows

    @property
    def cut(self) -> bool:
        """Whether it was mostly their limits that ended its outputs."""
        return 0 < self.limit_tokens * _CUT_SHARE <= self.tokens


def from_limits(limits: Limits) -> Lengths:
    """Where nothing else is known: every output as long as it may be, which is a bound."""
    low = min(1.0, limits.mean)
    return Lengths(limits.mean, low, limits.mean, limits.longest, LengthSource.LIMIT, cut=True)


def from_sample(tokens: Sequence[int], limit_tokens: int, limits: Limits, rows: int) -> Lengths:
    """From rows of the very input.

    Args:
        tokens: of the outputs of each row that was run.
        limit_tokens: what these rows could have had at most.
        limits: of the whole input.
        rows: of the whole input.
    """
    seen = Seen(len(tokens), sum(tokens), limit_tokens)
    mean = _scaled(seen, limits)
    error = 0.5
    if len(tokens) > 1 and seen.tokens:
        missing = max(0.0, 1.0 - len(tokens) / max(rows, 1))
        error = 2.0 * stdev(tokens) / math.sqrt(len(tokens)) / seen.mean * math.sqrt(missing)
    error = max(error, _SAMPLE_SPREAD)
    longest = _scaled(Seen(1, max(tokens), limit_tokens // len(tokens)), limits)
    found = Lengths(
        mean,
        mean * max(0.0, 1.0 - error),
        mean * (1.0 + error),
        1.2 * longest,
        LengthSource.SAMPLE,
        len(tokens),
        seen.cut,
    )
    return found.within(limits)


def from_history(jobs: Sequence[Seen], limits: Limits, rows: int) -> Lengths:
    """From earlier jobs that are alike, of which there is one at least."""
    means = [_scaled(job, limits) for job in jobs]
    counts = [job.rows for job in jobs]
    mean = fmean(means, weights=counts)
    least = _ONE_JOB_SPREAD if len(jobs) == 1 else _HISTORY_SPREAD
    # The longest of many, whose lengths fall off as those of answers do: exponentially.
    longest = mean * (1.0 + math.log(max(rows, 1)))
    found = Lengths(
        mean,
        min(min(means), mean * (1.0 - least)),
        max(max(means), mean * (1.0 + least)),
        longest,
        LengthSource.HISTORY,
        sum(counts),
        all(job.cut for job in jobs),
    )
    return found.within(limits)


def _scaled(seen: Seen, limits: Limits) -> float:
    """The mean of a row under other limits: where the limits end outputs, it grows with them."""
    if not seen.cut or limits.mean <= 0:
        return seen.mean
    return seen.mean * limits.mean * seen.rows / seen.limit_tokens
