"""How long a job that runs will still take, from tokens and from the lengths seen so far."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# The estimate's mean length counts as so many rows, beside those that have ended.
_PRIOR_ROWS = 20.0
# From this share of the work on, the speed so far is all that counts.
_TELLING_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Done:
    """What has come of a job so far: rows that have ended, of how many, and their tokens."""

    rows: int
    of_rows: int
    prompt_tokens: int
    output_tokens: int


def seconds_left(estimate: Mapping[str, Any], done: Done, running: float) -> float:
    """Seconds until the last row has ended.

    Work is measured in the estimate's device time: some of it for prompt tokens, the rest for
    output tokens. At first the estimate's speed counts, soon the job's own.

    Args:
        estimate: as `storage.estimates.estimate.estimate` made it.
        running: seconds since the job began to run.
    """
    expected = float(estimate["device_seconds"]["expected"])
    whole = float(estimate["start_seconds"]) + expected / max(1, int(estimate["engines"]))
    share = min(1.0, _share_done(estimate, done, expected))
    if share <= 0.0:
        return max(0.0, whole - running)
    by_own = running / share * (1.0 - share)
    told = min(1.0, share / _TELLING_SHARE) if is_measured(estimate) else 1.0
    return told * by_own + (1.0 - told) * whole * (1.0 - share)


def is_measured(estimate: Mapping[str, Any] | None) -> bool:
    """Whether there is an estimate, whose speed was learned on its device."""
    return estimate is not None and estimate["device_seconds"]["source"] == "measured"


def _share_done(estimate: Mapping[str, Any], done: Done, expected: float) -> float:
    prompts = _ratio(done.prompt_tokens, float(estimate["prompt_tokens"]))
    outputs = _ratio(done.output_tokens, _tokens_expected(estimate, done))
    if expected <= 0.0:
        return _ratio(done.rows, done.of_rows)
    of_prompts = float(estimate["prompt_seconds"]) / expected
    return of_prompts * prompts + (1.0 - of_prompts) * outputs


def _tokens_expected(estimate: Mapping[str, Any], done: Done) -> float:
    """Output tokens in the end: those that are there, and the rest at the mean learned so far."""
    before = float(estimate["output_tokens"]["expected"]) / max(1, done.of_rows)
    mean = (done.output_tokens + before * _PRIOR_ROWS) / (done.rows + _PRIOR_ROWS)
    return done.output_tokens + mean * max(0, done.of_rows - done.rows)


def _ratio(some: float, whole: float) -> float:
    return min(1.0, some / whole) if whole > 0 else 1.0
