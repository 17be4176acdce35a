"""Estimates beside what came of them, on four kinds of work.

    python benchmarks/service/estimates.py
    python benchmarks/service/estimates.py --rows 500 --work docstrings prefixes --json

Each kind of work is estimated after a sample that is really run, and then run, in a home folder of
its own, so that nothing but the sample teaches the estimate. Tokens of prompts must be exact. What
is told is the share by which the estimate differs: of what prefixes and duplicates save, of output
tokens, and of the device's time; and of the whole run's time beside.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
from texts import docstrings

from storage.settings import Settings
from tidemill.client import Client
from tidemill.serve.logs import start_logs
from tidemill.serve.service import Service

ENDPOINT = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Row:
    """One request: the prompt, the system message, and the most tokens of its answer."""

    prompt: str
    max_tokens: int
    system: str | None = None
    ignore_eos: bool = False

    def line(self, number: int) -> dict[str, Any]:
        """As a line of a batch's input."""
        messages = [{"role": "user", "content": self.prompt}]
        if self.system is not None:
            messages.insert(0, {"role": "system", "content": self.system})
        body = {"messages": messages, "temperature": 0, "max_tokens": self.max_tokens}
        if self.ignore_eos:
            body["ignore_eos"] = True
        return {"custom_id": f"row-{number}", "method": "POST", "url": ENDPOINT, "body": body}


def texts(count: int) -> list[str]:
    """Docstrings of at most 1,500 characters, in a fixed random order."""
    found = [text for text in docstrings() if 40 < len(text) < 1_500]
    Random(0).shuffle(found)
    return found[:count]


def natural(count: int) -> list[Row]:
    """Docstrings to be summed up; an answer ends where the model ends it."""
    task = "Say in one short sentence what this text is about.\n\n"
    return [Row(task + text, 96) for text in texts(count)]


def prefixes(count: int) -> list[Row]:
    """Short questions behind four long system messages."""
    long = [" ".join(texts(200)[start::4])[:4_000] for start in range(4)]
    return [
        Row(f"Question {number}: what is meant by that?", 24, long[number % 4])
        for number in range(count)
    ]


def duplicates(count: int) -> list[Row]:
    """Docstrings, of which each comes five times."""
    some = natural(max(1, count // 5))
    rows = [some[number % len(some)] for number in range(count)]
    Random(1).shuffle(rows)
    return rows


def outputs(count: int) -> list[Row]:
    """Long answers, each as long as it may be, of 64 to 384 tokens."""
    draw = Random(2)
    return [
        Row(f"Tell a story of {number} ships.", draw.randint(64, 384), ignore_eos=True)
        for number in range(count)
    ]


WORK: dict[str, tuple[Callable[[int], list[Row]], int]] = {
    "docstrings": (natural, 800),
    "prefixes": (prefixes, 600),
    "duplicates": (duplicates, 1_000),
    "outputs": (outputs, 200),
}


@dataclass(frozen=True, slots=True)
class Difference:
    """What was expected of some work and what came; shares are of what came."""

    work: str
    rows: int
    prompt_tokens_exact: bool
    saved_tokens: int
    saved_off: float
    output_tokens: int
    output_off: float
    device_seconds: float
    device_off: float
    seconds: float
    seconds_off: float


def measure(work: str, rows: list[Row], sample: int, folder: Path) -> Difference:
    """Estimate, then run, in a home folder of its own."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row.line(n)) + "\n" for n, row in enumerate(rows)))
    home = folder / "home"
    settings = Settings.load(home=home, port=0, env_file=None, log_level="WARNING")
    start_logs(settings)
    with Service(settings) as service:
        told = _command("estimate", str(path), "--sample", str(sample), "--url", service.url)
    # Another engine: the sample's rows are in the prefix cache of the first.
    with Service(settings) as service:
        batch_id = _command("submit", str(path), "--url", service.url)["id"]
        with Client(service.url) as client:
            *_, batch = client.watch(batch_id)
    expected = told["estimate"]
    assert batch.estimate is not None
    actual = batch.estimate.actual
    assert actual is not None
    saved = expected["prefix_tokens"] + expected["duplicate_tokens"]
    output, time = expected["output_tokens"]["expected"], expected["device_seconds"]["expected"]
    seconds = expected["volumes"][0]["seconds"]
    return Difference(
        work,
        len(rows),
        expected["prompt_tokens"] == actual.prompt_tokens,
        actual.cached_tokens,
        _off(saved, actual.cached_tokens),
        actual.output_tokens,
        _off(output, actual.output_tokens),
        actual.device_seconds,
        _off(time, actual.device_seconds),
        actual.seconds or 0.0,
        _off(seconds, actual.seconds or 0.0),
    )


def _command(*arguments: str) -> dict[str, Any]:
    """What a command prints as JSON."""
    command = [sys.executable, "-m", "tidemill", *arguments, "--json", "--quiet"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _off(expected: float, came: float) -> float:
    return (expected - came) / came if came else float(expected != came)


def main() -> None:
    """Parse the options, measure, and print a row for each kind of work."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--work", choices=WORK, nargs="+", default=list(WORK))
    parser.add_argument("--rows", type=int, help="rows of each kind")
    parser.add_argument("--sample", type=int, default=50)
    parser.add_argument("--json", action="store_true", help="one object a kind of work")
    options = parser.parse_args()
    for work in options.work:
        make, count = WORK[work]
        with tempfile.TemporaryDirectory(prefix="tidemill-estimates-") as folder:
            found = measure(work, make(options.rows or count), options.sample, Path(folder))
        if options.json:
            print(json.dumps(asdict(found)), flush=True)
            continue
        exact = "exact" if found.prompt_tokens_exact else "NOT EXACT"
        print(
            f"{found.work}, {found.rows:,} rows: prompt tokens {exact}; "
            f"saved {found.saved_tokens:,} ({found.saved_off:+.1%}); "
            f"output {found.output_tokens:,} ({found.output_off:+.1%}); "
            f"device {found.device_seconds:.1f} s ({found.device_off:+.1%}); "
            f"run {found.seconds:.1f} s ({found.seconds_off:+.1%})",
            flush=True,
        )


if __name__ == "__main__":
    main()
