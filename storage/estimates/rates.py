"""How fast a model runs on a device, learned from what finished chunks took.

A step reads the weights once, whatever it computes, and each of its tokens is arithmetic. So the
time is taken as ``a`` for each prompt token, ``b`` for each output token and ``c`` for each step.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from storage.estimates.work import Work

# How much the proportions of the roofline count, in chunks' worth of measurements.
_PRIOR_WEIGHT = 0.02
_LEAST_FACTOR = 0.02  # a rate is never below this share of what the roofline says
_ROUNDS, _DESCENTS, _CLOSE = 20, 60, 1e-3
_HUBER = 1.5  # usual errors
_FEW = 3
_LEAST_SPREAD = 0.05
_UNKNOWN_SPREAD = 0.25


@dataclass(frozen=True, slots=True)
class Measured:
    """What some work took: ``seconds`` of one engine's time."""

    work: Work
    seconds: float


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds for a prompt token, for an output token, and for a step.

    Attributes:
        spread: how far off a time may be, as a share of it.
        runs: how many measurements they were learned from; 0 for a roofline.
    """

    prompt: float
    output: float
    step: float
    spread: float = 1.0
    runs: int = 0

    def seconds(self, work: Work) -> float:
        """How long the work takes."""
        return sum(rate * amount for rate, amount in zip(self.each, work.parts, strict=True))

    def prompt_seconds(self, work: Work) -> float:
        """How much of that goes into prompts."""
        return self.prompt * work.prompt_tokens

    def times(self, factor: float, spread: float | None = None) -> "Rates":
        """The rates of a device on which everything takes ``factor`` times as long."""
        kept = self.spread if spread is None else spread
        return Rates(
            self.prompt * factor, self.output * factor, self.step * factor, kept, self.runs
        )

    @property
    def each(self) -> tuple[float, float, float]:
        """The three rates."""
        return self.prompt, self.output, self.step


def learned(measured: Sequence[Measured], roofline: Rates) -> Rates:
    """The rates that fit the measurements best.

    Least squares of the errors' logarithms, without negative rates. Where the measurements leave
    open what belongs to prompts, outputs and steps, the roofline's proportions decide; what is far
    off pulls no more than what is a little off (Huber's weights).

    Args:
        measured: in any order.
        roofline: of the same model and device; returned as it is where nothing was measured.
    """
    usable = [each for each in measured if each.seconds > 0 and roofline.seconds(each.work) > 0]
    if not usable:
        return roofline
    base = roofline.times(median(each.seconds / roofline.seconds(each.work) for each in usable))
    # What share of its time each part of some work should have taken: each gets a factor.
    shares = [
        [
            rate * amount / each.seconds
            for rate, amount in zip(base.each, each.work.parts, strict=True)
        ]
        for each in usable
    ]
    # A chunk of a blink says little: a wake-up or a page fault is much of it.
    trust = [each.seconds / (each.seconds + 1.0) for each in usable]
    factors = [1.0, 1.0, 1.0]
    for _ in range(_ROUNDS):
        before = factors
        factors = _better(shares, trust, factors)
        if max(abs(a - b) for a, b in zip(before, factors, strict=True)) < _CLOSE:
            break
    spread = _usual(_off(shares, factors))
    if len(usable) < _FEW:
        spread = max(spread, _UNKNOWN_SPREAD)
    prompt, output, step = (rate * factor for rate, factor in zip(base.each, factors, strict=True))
    return Rates(prompt, output, step, spread, runs=len(usable))


def fitted(rates: Rates, alike: Sequence[Measured]) -> Rates:
    """The rates for work that is like what was measured here: of a sample, or of earlier such jobs.

    What is particular to it, as the length of its contexts, is in none of the three rates.
    """
    seconds = sum(each.seconds for each in alike)
    expected = sum(rates.seconds(each.work) for each in alike)
    if seconds <= 0 or expected <= 0:
        return rates
    trust = seconds / (seconds + 1.0)
    factor = math.exp(trust * math.log(seconds / expected))
    sure = trust / 2 if rates.runs >= _FEW else 0.0  # one run says nothing of how runs differ
    return rates.times(factor, spread=max(_LEAST_SPREAD, rates.spread * (1.0 - sure)))


def _off(shares: Sequence[Sequence[float]], factors: Sequence[float]) -> list[float]:
    """How far the times that the factors give are off, as logarithms."""
    told = (sum(s * f for s, f in zip(row, factors, strict=True)) for row in shares)
    return [math.log(max(each, 1e-9)) for each in told]


def _usual(off: Sequence[float]) -> float:
    """The usual error: what the standard deviation would be, if errors were normal."""
    return max(_LEAST_SPREAD, 1.4826 * median(map(abs, off)))


def _better(
    shares: Sequence[Sequence[float]], trust: Sequence[float], factors: Sequence[float]
) -> list[float]:
    """One step of Gauss and Newton to factors with smaller errors.

    A logarithm's slope is the share itself, of the time that is told now.
    """
    off = _off(shares, factors)
    bend = _HUBER * _usual(off)
    gram = [[_PRIOR_WEIGHT * (i == j) for j in range(3)] for i in range(3)]
    wanted = [_PRIOR_WEIGHT] * 3
    for row, sure, error in zip(shares, trust, off, strict=True):
        weight = sure * min(1.0, bend / max(abs(error), 1e-9))
        told = math.exp(error)
        slope = [share / told for share in row]
        goal = 1.0 - max(-1.0, min(1.0, error))
        for i in range(3):
            wanted[i] += weight * slope[i] * goal
            for j in range(3):
                gram[i][j] += weight * slope[i] * slope[j]
    return _solved(gram, wanted, factors)


def _solved(
    gram: Sequence[Sequence[float]], wanted: Sequence[float], start: Sequence[float]
) -> list[float]:
    """Non-negative least squares by coordinate descent: it is convex, and has one minimum."""
    found = list(start)
    for _ in range(_DESCENTS):
        moved = 0.0
        for i in range(3):
            others = sum(gram[i][j] * found[j] for j in range(3) if j != i)
            next_one = max(_LEAST_FACTOR, (wanted[i] - others) / gram[i][i])
            moved = max(moved, abs(next_one - found[i]))
            found[i] = next_one
        if moved < _CLOSE:
            break
    return found
