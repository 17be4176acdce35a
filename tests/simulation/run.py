"""Plays many seeds, of the product or of mutants of it, and prints what failed.

    make simulate ARGS="--seeds 10000"
    make simulate ARGS="--start 4711 --seeds 1 --trace"
    make simulate ARGS="--mutants required --seeds 40"

A failing seed is printed with its violation and how to play it again. Progress goes to stderr, in
place on a terminal and as a line a minute elsewhere. Ctrl-C ends a run early and still sums it up.
Exit code 1: a seed failed, or a mutant was caught by none; 130: ended by Ctrl-C.
"""

import argparse
import gc
import importlib
import json
import multiprocessing
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

from simulation.mutants.catalog import MUTANTS
from simulation.mutants.loading import apply
from simulation.mutants.more import MORE
from simulation.mutants.required import REQUIRED
from simulation.mutants.shards import SHARDS

BLOCK = 20  # seeds that a process plays before it reports
# What the product imports and no mutant changes: loaded once, ahead of the processes' forks.
FOREIGN = "alembic.config greenlet numpy orjson pyarrow pydantic_settings sqlmodel"


@dataclass(frozen=True, slots=True)
class Task:
    """Seeds ``[start, end)``, of the product or of a mutant; all, or up to the first failure."""

    start: int
    end: int
    mutant: str | None = None
    first_only: bool = False
    trace: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """A seed that failed."""

    seed: int
    invariant: str
    message: str


@dataclass(slots=True)
class Report:
    """What became of a task."""

    task: Task
    played: int = 0
    jobs: int = 0
    faults: int = 0
    failures: list[Failure] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)

    @property
    def caught(self) -> list[Failure]:
        """The failures by an invariant that tells of the mutant."""
        known = MUTANTS[self.task.mutant].caught_by if self.task.mutant else frozenset()
        return [failure for failure in self.failures if failure.invariant in known]


@dataclass(slots=True)
class Total:
    """What became of all tasks so far."""

    wanted: int
    began: float = field(default_factory=time.monotonic)
    shown: float = field(default_factory=time.monotonic)
    played: int = 0
    jobs: int = 0
    faults: int = 0
    failures: list[Failure] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.began

    def add(self, report: Report) -> None:
        """Count a report, and tell of its failures at once."""
        self.played += report.played
        self.jobs += report.jobs
        self.faults += report.faults
        self.failures += report.failures
        for failure in report.failures:
            print(
                f"\rseed {failure.seed}: {failure.invariant}: {failure.message}\n"
                f'  make simulate ARGS="--start {failure.seed} --seeds 1 --trace"',
                file=sys.stderr,
            )

    def show(self) -> None:
        """Progress, where it is time for it."""
        terminal = sys.stderr.isatty()
        if time.monotonic() - self.shown < (0.5 if terminal else 60.0):
            return
        self.shown = time.monotonic()
        rate = self.played / self.seconds
        left = (self.wanted - self.played) / rate / 60
        line = f"{self.played} of {self.wanted} seeds, {rate:.1f} a second, {left:.0f} min left"
        print(f"\r{line}  " if terminal else line, end="" if terminal else "\n", file=sys.stderr)

    def values(self) -> dict[str, object]:
        """For programs."""
        failed = [asdict(failure) for failure in self.failures]
        values = {"seeds": self.played, "jobs": self.jobs, "faults": self.faults}
        return {**values, "failures": failed, "seconds": round(self.seconds, 1)}

    def summary(self) -> str:
        """For people."""
        seconds = self.seconds
        return (
            f"{self.played} seeds, {self.jobs} jobs, {self.faults} faults, "
            f"{len(self.failures)} failures; {seconds:.0f} s, "
            f"{self.played / max(seconds, 1e-9):.1f} seeds a second"
        )


def play(task: Task) -> Report:
    """Play a task's seeds in this process."""
    if task.mutant is not None:
        apply(MUTANTS[task.mutant])
    player = importlib.import_module("simulation.play")
    memory = importlib.import_module("simulation.virtual.database").Memory()
    report = Report(task)
    gc.disable()  # a run leaves little behind, and its pauses would cost a tenth
    for seed in range(task.start, task.end):
        outcome = player.play(seed, memory)
        report.played += 1
        report.jobs += outcome.jobs
        report.faults += outcome.struck
        violation = outcome.violation
        if violation is not None:
            report.failures.append(Failure(seed, violation.invariant, violation.message))
        if task.trace:
            report.trace += outcome.lines()
        if task.first_only and report.caught:
            break
    gc.enable()
    gc.collect()
    return report


def play_all(tasks: list[Task], processes: int) -> Iterator[Report]:
    """Play tasks in processes of their own, as they come; reports in the order they are done."""
    for name in FOREIGN.split():
        importlib.import_module(name)
    fresh = any(task.mutant for task in tasks)
    context = multiprocessing.get_context("fork")
    with context.Pool(processes, _leave_ctrl_c, maxtasksperchild=1 if fresh else None) as pool:
        yield from pool.imap_unordered(play, tasks)


def main() -> int:
    """The command line; the exit code."""
    options = _options()
    names = _names(options.mutants)
    if names:
        return _run_mutants(options, names)
    end = options.start + options.seeds
    tasks = [
        Task(start, min(start + BLOCK, end), trace=options.trace)
        for start in range(options.start, end, BLOCK)
    ]
    total = Total(options.seeds)
    code = 0
    try:
        for report in play_all(tasks, options.processes):
            total.add(report)
            print(*report.trace, sep="\n", end="\n" if report.trace else "")
            total.show()
    except KeyboardInterrupt:
        code = 130
    if sys.stderr.isatty():
        print(file=sys.stderr)
    print(f"{json.dumps(total.values()) if options.json else total.summary()}")
    return code or (1 if total.failures else 0)


def _leave_ctrl_c() -> None:
    """Ctrl-C reaches every process of the terminal; the first of them decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run_mutants(options: argparse.Namespace, names: list[str]) -> int:
    end = options.start + options.seeds
    tasks = [Task(options.start, end, name, first_only=options.first) for name in names]
    reports = {}
    for report in play_all(tasks, options.processes):
        reports[report.task.mutant] = report
        if not options.json:
            print(_row(report), flush=True)
    if options.json:
        print(json.dumps({name: _values(reports[name]) for name in names}))
    return 0 if all(report.caught for report in reports.values()) else 1


def _values(report: Report) -> dict[str, object]:
    first = report.caught[0] if report.caught else None
    return {
        "caught": len(report.caught),
        "seeds": report.played,
        "first": asdict(first) if first else None,
        "invariants": dict(sorted(Counter(f.invariant for f in report.failures).items())),
    }


def _row(report: Report) -> str:
    kinds = Counter(failure.invariant for failure in report.failures)
    how = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
    return (
        f"{report.task.mutant or '':34} caught in {len(report.caught):4} of {report.played:5} seeds"
        f"  ({how or 'nothing seen'})"
    )


def _names(wanted: str | None) -> list[str]:
    groups = {
        None: (),
        "all": tuple(MUTANTS.values()),
        "required": REQUIRED,
        "more": MORE,
        "shards": SHARDS,
    }
    if wanted in groups:
        return [mutant.name for mutant in groups[wanted]]
    names = (wanted or "").split(",")
    unknown = [name for name in names if name not in MUTANTS]
    if unknown:
        raise SystemExit(f"No such mutant: {unknown[0]}. There are: {', '.join(MUTANTS)}.")
    return names


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=1_000, help="how many")
    parser.add_argument("--start", type=int, default=0, help="the first")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--mutants", help="names, with commas between, or required, more or all")
    parser.add_argument("--first", action="store_true", help="stop a mutant at its first catch")
    parser.add_argument("--trace", action="store_true", help="print what happened in each seed")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
