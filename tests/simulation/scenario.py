"""What clients ask for in one run: drawn from the seed, and known to the checker."""

import random
from dataclasses import dataclass
from typing import Any

import orjson

from simulation.virtual.echo import POISON

MODEL = "smollm2"
ENDPOINT = "/v1/completions"
DAY = 86_400.0
WEEK = 7 * DAY


@dataclass(frozen=True, slots=True)
class Line:
    """An input line. ``tokens`` is all of its prompts, and empty for a line that is no request."""

    custom_id: str
    tokens: tuple[int, ...]

    @property
    def poison(self) -> bool:
        """Whether it ends the engine."""
        return POISON in self.tokens

    @property
    def valid(self) -> bool:
        """Whether it is a request."""
        return bool(self.tokens)

    @property
    def prompts(self) -> tuple[tuple[int, ...], ...]:
        """One, or three of which two are equal."""
        if self.valid and self.tokens[1] % 3 == 0:
            return self.tokens[:2], self.tokens[2:], self.tokens[:2]
        return (self.tokens,)

    def encode(self) -> bytes:
        """As JSON."""
        prompts: Any = self.prompts if len(self.prompts) > 1 else self.tokens
        body: dict[str, Any] = {"model": MODEL, "prompt": prompts, "temperature": 0}
        if not self.valid:
            body = {"model": MODEL}
        line = {"custom_id": self.custom_id, "method": "POST", "url": ENDPOINT, "body": body}
        return orjson.dumps(line)


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch that a client creates, and what it does with it then.

    Times are seconds after the run's start; ``None`` is never. ``window`` is the completion window;
    ``estimated``: the batch asks for its estimate alone; ``written``: its results are to be written
    to a place of the client's as well.
    """

    name: str
    lines: tuple[Line, ...]
    created: float
    window: float
    priority: int
    cancelled: float | None
    paused: float | None
    resumed: float
    retried: bool
    estimated: bool
    written: bool

    @property
    def data(self) -> bytes:
        """The input file."""
        return b"\n".join(line.encode() for line in self.lines)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run's batches, and what holds for all of it.

    Attributes:
        chunk_lines, window_lines: how finely the planner cuts.
        newer_chunk_lines: the same of every second worker: a setting that is just being changed.
        workers: processes.
        outage: when everything stands still for more than a day, if ever.
        power_cut: when all workers die at once, if ever.
        leaves: when one worker is told to leave, if ever.
        faults_end: when the faults stop.
    """

    batches: tuple[Batch, ...]
    chunk_lines: int
    window_lines: int
    workers: int
    outage: float | None
    power_cut: float | None
    leaves: float | None
    faults_end: float
    newer_chunk_lines: int


def draw(rng: random.Random) -> Scenario:
    """A scenario of one to three small batches."""
    batches = tuple(_batch(rng, number) for number in range(rng.choice((1, 1, 1, 2, 3))))
    chunk_lines = rng.choice((1, 2, 3, 5))
    return Scenario(
        batches,
        chunk_lines=chunk_lines,
        window_lines=rng.choice((4, 6, 100)),
        workers=rng.choice((2, 2, 2, 3)),
        outage=rng.uniform(5, 90) if rng.random() < 0.08 else None,
        power_cut=rng.uniform(5, 90) if rng.random() < 0.1 else None,
        leaves=rng.uniform(5, 90) if rng.random() < 0.15 else None,
        faults_end=rng.uniform(60, 240),
        newer_chunk_lines=rng.choice((1, 2, 3, 5)) if rng.random() < 0.3 else chunk_lines,
    )


def _batch(rng: random.Random, number: int) -> Batch:
    count = rng.choice((2, 2, 3, 4, 6, 8, 12))
    poison = rng.randrange(count) if rng.random() < 0.2 else None
    invalid = rng.randrange(count) if rng.random() < 0.1 else None
    lines: list[Line] = []
    for index in range(count):
        same = index - 1 if index and rng.random() < 0.1 else index
        tokens: tuple[int, ...] = (2 + number, 20 + same, 40 + rng.randrange(3))
        if same != index and lines[-1].valid and not lines[-1].poison:
            tokens = lines[-1].tokens
        if index == poison:
            tokens = (7, POISON, index)
        elif index == invalid:
            tokens = ()
        lines.append(Line(f"{number}-{index}", tokens))
    rng.shuffle(lines)
    created = rng.uniform(0, 20)
    return Batch(
        name=f"b{number}",
        lines=tuple(lines),
        created=created,
        window=rng.uniform(*_soon(rng, 20, 150)) if rng.random() < 0.12 else WEEK,
        priority=rng.choice((0, 0, 1)),
        cancelled=created + rng.uniform(*_soon(rng, 0, 80)) if rng.random() < 0.2 else None,
        paused=created + rng.uniform(0, 40) if rng.random() < 0.15 else None,
        resumed=created + rng.uniform(40, 150),
        retried=rng.random() < 0.3,
        # Of its own: the draws of other things stay as they were.
        estimated=random.Random(f"{number} {created}").random() < 0.2,
        written=random.Random(created).random() < 0.3,
    )


def _soon(rng: random.Random, *usual: float) -> tuple[float, ...]:
    """The usual range of seconds, or one in which a batch is mostly not planned yet."""
    return (0.0, 0.5) if rng.random() < 0.3 else usual
