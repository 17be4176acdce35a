"""What goes wrong in one run, and how often: drawn from the seed, so that runs differ in kind."""

import random
from dataclasses import dataclass, replace
from enum import StrEnum


class Fault(StrEnum):
    """What can happen around one transaction or one call of the store."""

    KILL = "killed"
    FREEZE = "frozen"
    FAIL = "failed"
    SLOW = "slow"


@dataclass(frozen=True, slots=True)
class Faults:
    """Chances, each at one point where a process touches the database or the store.

    Attributes:
        kill: SIGKILL of the process.
        freeze: it stands still for longer than a lease, mostly.
        fail: before the point an error without effect, after it a lost answer.
        slow: this one takes seconds.
        late: a failed write of the store arrives after all, later.
        blind: of the frozen, those whose own clock stood still too.
        hot: chances are so many times as large around the writes that end something.
        engine_death: the engine dies while it computes.
        lost, doubled: wake-ups.
        conditional: the store honours ``If-None-Match``.
    """

    kill: float
    freeze: float
    fail: float
    slow: float
    late: float
    blind: float
    hot: float
    engine_death: float
    lost: float
    doubled: float
    conditional: bool
    most: int = 12


MIXED = Faults(0.01, 0.015, 0.03, 0.02, 0.3, 0.5, 4.0, 0.02, 0.3, 0.2, True)
# What differs from the mixture: nothing, few faults, zombies, lost answers, deaths.
KINDS: tuple[dict[str, float], ...] = (
    {},
    {"kill": 0.0, "freeze": 0.0, "fail": 0.005, "engine_death": 0.0},
    {"kill": 0.0, "freeze": 0.004, "fail": 0.0, "slow": 0.0, "hot": 50.0},
    {"kill": 0.0, "freeze": 0.005, "fail": 0.08, "late": 0.7, "hot": 5.0},
    {"kill": 0.03, "freeze": 0.0, "fail": 0.01, "engine_death": 0.1, "hot": 5.0},
)


def draw(rng: random.Random) -> Faults:
    """One of the kinds, with a store that may ignore conditions and wake-ups that may all fail."""
    changes = rng.choice(KINDS)
    return replace(
        MIXED,
        **changes,  # type: ignore[arg-type] # all of them are floats
        blind=rng.choice((0.0, 0.5, 1.0)),
        lost=rng.choice((0.0, 0.3, 1.0)),
        conditional=rng.random() < 0.5,
    )
