"""Run every property test again and again, each round with a new seed, and say what fails.

make fuzz ARGS="--minutes 20"                      every property test, for 20 minutes
make fuzz ARGS="--minutes 5 tests/worker"          those of a folder, a file or a test
make fuzz ARGS="--rounds 1 --seed 7 tests/x.py"    one round again, with the seed it printed

What failed stays in .hypothesis/examples and is tried first in the next round, so a failure comes
back until it is mended; ``make test`` never reads it. Ctrl-C ends the run after a summary.
"""

import argparse
import random
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
_PYTEST = ("-m", "pytest", "-m", "hypothesis", "-q")
_EXAMPLES = re.compile(r"- ([\d,]+) passing, ([\d,]+) failing, and [\d,]+ invalid test cases")
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
_BLOB = re.compile(r"@reproduce_failure\(.*\)")
_NO_TESTS = 5  # pytest's exit status


@dataclass(frozen=True)
class Round:
    """One run of all the property tests with one seed."""

    seed: int
    seconds: float
    tests: int
    examples: int
    failed: tuple[str, ...]
    output: str

    def __str__(self) -> str:
        return (
            f"seed {self.seed:<10}  {self.tests} tests  {self.examples:,} examples  "
            f"{len(self.failed)} failed  {self.seconds:.0f} s"
        )


def find_files(arguments: Sequence[str]) -> list[str]:
    """The files, or what the arguments name in place of them, that hold property tests."""
    done = _pytest("--collect-only", *arguments)
    if done.returncode:
        raise SystemExit(
            "No property test was found." if done.returncode == _NO_TESTS else done.stdout
        )
    named = [line for line in done.stdout.splitlines() if "::" in line]
    return list(arguments) or sorted({line.split("::")[0] for line in named})


def run_round(seed: int, arguments: Sequence[str]) -> Round:
    """Run the tests with ``seed``.

    Raises:
        SystemExit: pytest itself failed; with its output.
    """
    began = time.monotonic()
    done = _pytest(
        "--hypothesis-profile=fuzz",
        "--hypothesis-show-statistics",
        f"--hypothesis-seed={seed}",
        *arguments,
    )
    if done.returncode not in (0, 1):
        raise SystemExit(f"{done.stdout}\npytest ended with status {done.returncode}")
    counts = [int(n.replace(",", "")) for pair in _EXAMPLES.findall(done.stdout) for n in pair]
    failed = tuple(dict.fromkeys(_FAILED.findall(done.stdout)))
    tests = sum(int(n) for n in re.findall(r"(\d+) (?:passed|failed|error)", done.stdout))
    return Round(seed, time.monotonic() - began, tests, sum(counts), failed, done.stdout)


def _pytest(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, *_PYTEST, *arguments]
    return subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )


def explain(found: Round, names: Sequence[str]) -> str:
    """What failed, and the command that shows it again."""
    report = found.output.partition("= FAILURES =")[2].partition("= Hypothesis Statistics =")[0]
    lines = [report.strip("= \n"), "", "Replay it:"]
    lines += [
        shlex.join(
            [
                ".venv/bin/pytest",
                "--hypothesis-profile=fuzz",
                f"--hypothesis-seed={found.seed}",
                name,
            ]
        )
        for name in names
    ]
    blobs = dict.fromkeys(_BLOB.findall(report))
    if blobs:
        lines += ["or put this above the test, without a database and anywhere:", *blobs]
    return "\n".join(lines)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make fuzz", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, help="begin no round after this long")
    parser.add_argument("--rounds", type=int, help="begin no more rounds than this")
    parser.add_argument("--seed", type=int, help="of the first round; each next one adds 1")
    parser.add_argument("tests", nargs="*", help="folders, files or tests; all, if none is named")
    return parser.parse_args(arguments)


def main() -> int:
    args = parse()
    seed = random.SystemRandom().randrange(2**31) if args.seed is None else args.seed
    began = time.monotonic()
    files = find_files(args.tests)
    rounds = examples = 0
    failed: dict[str, int] = {}
    try:
        while (args.rounds is None or rounds < args.rounds) and (
            args.minutes is None or time.monotonic() - began < 60 * args.minutes
        ):
            found = run_round(seed + rounds, files)
            rounds += 1
            examples += found.examples
            print(f"round {rounds:<4} {found}", flush=True)
            new = [name for name in found.failed if name not in failed]
            if new:
                print(explain(found, new), flush=True)
            failed |= dict.fromkeys(new, found.seed)
    except KeyboardInterrupt:
        print()
    minutes = (time.monotonic() - began) / 60
    print(f"{rounds} rounds, {examples:,} examples, {len(failed)} failed, {minutes:.1f} minutes")
    for name, with_seed in failed.items():
        print(f"  {name}  (seed {with_seed})")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
