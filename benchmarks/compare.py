"""Two checkouts of Tidemill against each other, in turns: what a change costs or brings.

    git worktree add ../before v0.1.0
    python benchmarks/compare.py ../before
    python benchmarks/compare.py ../before --only throughput --runs 15

Both run on this Python, each on the code of its own folder:

- ``throughput``: tokens a second of the engine, by workload. Each checkout's engine stays loaded in
  a process of its own, and they take turns run by run.
- ``planner``: lines a second of planning, running and finalizing (`benchmarks/scale.py`).
- ``start``: seconds of ``tidemill --help``, and until an engine is ready.

Medians of both, and the median of the ratios of neighbouring runs, which a machine that drifts
moves least.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

# Runs in the checkout's own process: "workload seed" a line in, tokens a second a line out.
ENGINE = """
import sys
from time import perf_counter
sys.path.insert(0, "benchmarks")
from engine import LLM, SamplingParams
from workloads import WORKLOADS
llm = LLM("smollm2")
print("ready", flush=True)
for line in sys.stdin:
    name, seed = line.split()
    items = WORKLOADS[name](llm.info.vocab_size, int(seed))
    began = perf_counter()
    for item in items:
        params = SamplingParams(temperature=0, max_tokens=item.output_tokens, ignore_eos=True)
        llm.submit(item.prompt, params)
    llm.flush()
    while llm.has_work:
        llm.step()
    seconds = perf_counter() - began
    print(sum(len(item.prompt) + item.output_tokens for item in items) / seconds, flush=True)
"""
PARTS = ("throughput", "planner", "start")


@dataclass(frozen=True, slots=True)
class Checkout:
    """A folder with a whole source tree of Tidemill."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """Its own code comes first, whatever is installed."""
        return {**os.environ, "PYTHONPATH": str(self.folder)}

    @property
    def command(self) -> list[str]:
        """The `tidemill` command of its code."""
        module = "tidemill" if (self.folder / "tidemill" / "__main__.py").exists() else ""
        return [sys.executable, "-m", module or "tidemill.main"]

    def run(self, command: list[str]) -> str:
        """What a command prints."""
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, check=True
        )
        return done.stdout.decode()


class Engine:
    """A checkout's engine in a process of its own."""

    def __init__(self, checkout: Checkout) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", ENGINE],
            cwd=checkout.folder,
            env=checkout.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._read()

    def rate(self, workload: str, seed: int) -> float:
        """Tokens a second, prompt and output."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{workload} {seed}\n")
        self._process.stdin.flush()
        return float(self._read())

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("An engine ended; its error is above.")
        return line


@dataclass(slots=True)
class Pair:
    """A figure of both checkouts, run by run."""

    name: str
    unit: str
    before: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)

    def take(self, turn: int, before: Callable[[], float], after: Callable[[], float]) -> None:
        """Measure both; every second turn the other one first."""
        order = [(before, self.before), (after, self.after)]
        for measure, kept in order if turn % 2 == 0 else reversed(order):
            kept.append(measure())

    def figures(self) -> dict[str, Any]:
        """Medians, and the median ratio after / before."""
        ratios = [new / old for old, new in zip(self.before, self.after, strict=True)]
        return {
            "name": self.name,
            "unit": self.unit,
            "before": median(self.before),
            "after": median(self.after),
            "ratio": median(ratios),
            "runs": len(ratios),
        }


def throughput(old: Checkout, new: Checkout, runs: int, workloads: list[str]) -> list[Pair]:
    """Tokens a second by workload; a first turn warms up."""
    before, after = Engine(old), Engine(new)
    pairs = [Pair(workload, "tokens/s") for workload in workloads]
    for turn in range(runs + 1):
        for pair in pairs:
            counted = pair if turn else Pair(pair.name, pair.unit)
            counted.take(
                turn,
                partial(before.rate, pair.name, turn),
                partial(after.rate, pair.name, turn),
            )
    before.close()
    after.close()
    return pairs


def planner(old: Checkout, new: Checkout, runs: int, lines: int) -> list[Pair]:
    """Lines a second of a whole job's phases."""
    phases = ("plan", "run", "finalize")
    pairs = [Pair(phase, "lines/s") for phase in phases]
    for turn in range(runs):
        order = [(old, "before"), (new, "after")]
        for checkout, side in order if turn % 2 == 0 else reversed(order):
            command = [sys.executable, "benchmarks/scale.py", "--lines", str(lines), "--json"]
            found = json.loads(checkout.run(command))
            for pair in pairs:
                getattr(pair, side).append(found[pair.name]["lines_per_second"])
    return pairs


def start(old: Checkout, new: Checkout, runs: int) -> list[Pair]:
    """Seconds of the command's own start, and of an engine's."""
    ready = [sys.executable, "-c", "from engine import LLM; LLM('smollm2')"]
    pairs = [Pair("tidemill --help", "s"), Pair("engine ready", "s")]
    for turn in range(runs):
        pairs[0].take(
            turn,
            lambda: _seconds(old, [*old.command, "--help"]),
            lambda: _seconds(new, [*new.command, "--help"]),
        )
        pairs[1].take(turn, lambda: _seconds(old, ready), lambda: _seconds(new, ready))
    return pairs


def _seconds(checkout: Checkout, command: list[str]) -> float:
    began = perf_counter()
    checkout.run(command)
    return perf_counter() - began


def main() -> None:
    """Measure what is asked for and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path, help="the other checkout's folder")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--workload", nargs="+", default=["mixed64", "prefix64"])
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--lines", type=int, default=50_000, help="of each run of the planner")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    old, new = Checkout(args.before.resolve()), Checkout(Path(__file__).resolve().parents[1])
    pairs: list[Pair] = []
    if "throughput" in args.only:
        pairs += throughput(old, new, args.runs, args.workload)
    if "planner" in args.only:
        pairs += planner(old, new, max(1, args.runs // 3), args.lines)
    if "start" in args.only:
        pairs += start(old, new, args.runs)
    for figures in (pair.figures() for pair in pairs):
        if args.json:
            print(json.dumps(figures))
        else:
            print(
                "{name:18}{before:12,.3f}{after:12,.3f} {unit:10}"
                "ratio {ratio:.3f} ({runs} runs)".format(**figures)
            )


if __name__ == "__main__":
    main()
