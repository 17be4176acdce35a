"""Plays many seeds, of the product or of mutants of it, and prints what failed.

    python tests/simulation/run.py --seeds 10000
    python tests/simulation/run.py --start 4711 --seeds 1 --trace
    python tests/simulation/run.py --mutants required --seeds 40

A failing seed is printed with its violation and how to play it again. Exit code 1: a seed failed,
or a mutant was caught by none.
"""

import argparse
import gc
import importlib
import json
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

TESTS = Path(__file__).parents[1]
# Not this script's own folder: its modules are of the package `simulation`.
sys.path[:1] = [str(TESTS), str(TESTS.parent)]

from simulation import mutants  # noqa: E402 - found through the line above

BLOCK = 20  # seeds that a process plays before it reports
# What the product imports and no mutant changes: loaded once, ahead of the processes' forks.
FOREIGN = "alembic.config celery greenlet kombu numpy orjson pyarrow pydantic_settings sqlmodel"


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
        known = mutants.MUTANTS[self.task.mutant].caught_by if self.task.mutant else frozenset()
        return [failure for failure in self.failures if failure.invariant in known]


def play(task: Task) -> Report:
    """Play a task's seeds in this process."""
    if task.mutant is not None:
        mutants.apply(mutants.MUTANTS[task.mutant])
    world = importlib.import_module("simulation.world")
    memory = importlib.import_module("simulation.database").Memory()
    report = Report(task)
    gc.disable()  # a run leaves little behind, and its pauses would cost a tenth
    for seed in range(task.start, task.end):
        outcome = world.play(seed, memory)
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
    with context.Pool(processes, maxtasksperchild=1 if fresh else None) as pool:
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
    began = time.monotonic()
    played = jobs = faults = 0
    failures: list[Failure] = []
    for report in play_all(tasks, options.processes):
        played += report.played
        jobs += report.jobs
        faults += report.faults
        failures += report.failures
        print(*report.trace, sep="\n", end="\n" if report.trace else "")
        for failure in report.failures:
            print(f"seed {failure.seed}: {failure.invariant}: {failure.message}")
            print(f"  python tests/simulation/run.py --start {failure.seed} --seeds 1 --trace")
        if sys.stderr.isatty():
            rate = played / (time.monotonic() - began)
            print(f"\r{played} seeds, {rate:.1f} a second", end="", file=sys.stderr)
    seconds = time.monotonic() - began
    if options.json:
        failed = [asdict(failure) for failure in failures]
        values = {"seeds": played, "jobs": jobs, "faults": faults, "failures": failed}
        print(json.dumps({**values, "seconds": round(seconds, 1)}))
    else:
        print(
            f"{played} seeds, {jobs} jobs, {faults} faults, {len(failures)} failures; "
            f"{seconds:.0f} s, {played / seconds:.1f} seeds a second"
        )
    return 1 if failures else 0


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
        "all": tuple(mutants.MUTANTS.values()),
        "required": mutants.REQUIRED,
        "more": mutants.MORE,
    }
    if wanted in groups:
        return [mutant.name for mutant in groups[wanted]]
    names = (wanted or "").split(",")
    unknown = [name for name in names if name not in mutants.MUTANTS]
    if unknown:
        raise SystemExit(f"No such mutant: {unknown[0]}. There are: {', '.join(mutants.MUTANTS)}.")
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
