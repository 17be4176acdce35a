"""What a soak came to, and how it is told."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

SHOWN_DETAILS = 30


@dataclass
class Result:
    """The numbers of one run. Speeds are lines a second, one for each slice.

    Attributes:
        faults: how often each kind of fault struck.
        broken: broken promises by kind; lost and double lines among them.
        false_poison: lines that ended as if they crashed engines, which none of them does.
        details: what was broken, in words.
        warnings: what went wrong with the run itself.
    """

    seed: int = 0
    workers: int = 0
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    jobs: int = 0
    lines: int = 0
    answered: int = 0
    broken: Counter[str] = field(default_factory=Counter)
    engine_starts: int = 0
    false_poison: int = 0
    calm: list[float] = field(default_factory=list)
    flushed: list[float] = field(default_factory=list)
    details: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """Whether every promise was kept, and there were any."""
        return not self.broken.total() and self.jobs > 0

    @property
    def mismatches(self) -> int:
        """Everything that was broken but lost and double lines."""
        return self.broken.total() - self.broken["lost"] - self.broken["double"]

    @property
    def ratio(self) -> float | None:
        """The speed with a FLUSHALL a minute as a share of the calm one."""
        if not self.flushed or not sum(self.calm):
            return None
        return sum(self.flushed) / len(self.flushed) / (sum(self.calm) / len(self.calm))

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of everything, in the order of a reader's interest."""
        rows = [(f"fault: {kind}", f"{count:,}") for kind, count in sorted(self.faults.items())]
        rows += [
            ("faults in all", f"{self.faults.total():,}"),
            ("jobs", f"{self.jobs:,}"),
            ("lines served", f"{self.lines:,}"),
            ("of these answered", f"{self.answered:,}"),
            ("lost", f"{self.broken['lost']:,}"),
            ("double", f"{self.broken['double']:,}"),
            ("other mismatches", f"{self.mismatches:,}"),
            ("lines blamed for crashes in vain", f"{self.false_poison:,}"),
            ("engine starts", f"{self.engine_starts:,}"),
        ]
        if self.ratio is not None:
            rows += [
                ("lines/s, calm", " ".join(f"{speed:.0f}" for speed in self.calm)),
                ("lines/s, FLUSHALL a minute", " ".join(f"{speed:.0f}" for speed in self.flushed)),
                ("ratio", f"{self.ratio:.1%}"),
            ]
        return [*rows, ("seconds", f"{self.seconds:.0f}"), ("seed", str(self.seed))]

    def table(self) -> str:
        """All of it for people."""
        width = max(len(name) for name, _ in self.rows())
        text = "\n".join(f"{name:<{width}}  {value:>12}" for name, value in self.rows())
        for title, lines in (("broken", self.details), ("warnings", self.warnings)):
            shown = [f"  {line}" for line in lines[:SHOWN_DETAILS]]
            if len(lines) > SHOWN_DETAILS:
                shown.append(f"  and {len(lines) - SHOWN_DETAILS} more")
            text += "".join(f"\n{line}" for line in [f"{title}:", *shown]) if lines else ""
        return text

    def json(self) -> dict[str, Any]:
        """All of it for programs."""
        return {
            **vars(self),
            "lost": self.broken["lost"],
            "double": self.broken["double"],
            "mismatches": self.mismatches,
            "ratio": self.ratio,
            "kept": self.kept,
        }
