"""Rows of a partitioned S3 prefix, validated, planned and estimated: rate and peak memory.

    python benchmarks/service/rows_in_place.py --rows 1000000

Parquet below ``s3://…/lake/dt=…/`` in a SeaweedFS of its own, twenty files, a template over two
columns; and the same prompts as lines of requests in one object there. ``tidemill up`` is asked for
an estimate of each, in turns: it reads, checks, tokenizes and orders every row and runs none.
Memory is the peak resident set (``VmHWM``) of the service's process, in which API and planner are,
over what it was before.
"""

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tidemill.client import Client

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "deploy"))
from stack.seaweed import Seaweed

FILES = 20
TEMPLATE = "Sum up what {{ author }} says, in one sentence.\n\n{{ review }}"
SENTENCE = "the kettle boils fast and looks good but its switch is stiff and the lid is loose"
WORDS = SENTENCE.split()
ENDPOINT = "/v1/chat/completions"


def columns(first: int, count: int) -> dict[str, list[Any]]:
    """Rows from ``first`` on; a review has about 60 words."""
    numbers = range(first, first + count)
    return {
        "id": [f"r{number}" for number in numbers],
        "author": [f"author {number % 977}" for number in numbers],
        "review": [
            " ".join(
                WORDS[(number * 7 + place * (number % 13 + 1)) % len(WORDS)] for place in range(60)
            )
            + f" {number}"
            for number in numbers
        ],
    }


def put(server: Seaweed, rows: int, folder: Path) -> None:
    """Write the rows as a dataset, and as lines of requests."""
    each = -(-rows // FILES)
    lines = folder / "lines.jsonl"
    with lines.open("w") as file:
        for number in range(FILES):
            given = columns(number * each, min(each, rows - number * each))
            path = folder / "rows.parquet"
            pq.write_table(pa.table(given), path, row_group_size=50_000)
            key = f"lake/dt=2026-11-{number + 1:02}/part.parquet"
            server.client.upload_file(str(path), server.bucket, key)
            for values in zip(*given.values(), strict=True):
                name, author, review = values
                text = f"Sum up what {author} says, in one sentence.\n\n{review}"
                body = {"messages": [{"role": "user", "content": text}]}
                line = {"custom_id": name, "method": "POST", "url": ENDPOINT, "body": body}
                print(json.dumps(line), file=file)
    server.client.upload_file(str(lines), server.bucket, "ready/lines.jsonl")
    lines.unlink()


@contextmanager
def service(server: Seaweed, home: Path) -> Iterator[tuple[Client, int]]:
    """``tidemill up`` beside the server: a client, and the process's id."""
    settings = {name: value for name, value in server.settings.items() if name.startswith("s3_")}
    environment = {f"TIDEMILL_{name.upper()}": value for name, value in settings.items()}
    environment["TIDEMILL_DATASET_URIS"] = f"s3://{server.bucket}"
    with subprocess.Popen(
        [sys.executable, "-m", "tidemill", "up", "--port", "0", "--home", str(home)],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://[^/\s]+", process.stdout.readline())
            assert found is not None, "tidemill up did not say where it listens"
            with Client(found[0]) as client:
                yield client, process.pid
        finally:
            process.send_signal(signal.SIGTERM)


def peak(pid: int) -> int:
    """The peak resident set of a process, in bytes, since the last call."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return int(found[1]) * 1024


def estimate(
    client: Client, pid: int, options: dict[str, Any]
) -> tuple[float, int, dict[str, Any]]:
    """Seconds, peak bytes, and the plan."""
    peak(pid)
    began = time.perf_counter()
    batch = client.create_batch(None, ENDPOINT, options={"estimate": True, **options})
    for seen in client.watch(batch.id):
        batch = seen
    seconds = time.perf_counter() - began
    assert batch.status == "completed", batch.errors
    assert batch.tidemill is not None
    assert batch.tidemill.plan is not None
    return seconds, peak(pid), batch.tidemill.plan


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = Seaweed(folder / "s3").start()
        try:
            put(server, given.rows, folder)
            inputs: dict[str, dict[str, Any]] = {
                "rows by a template": {
                    "input_uri": f"s3://{server.bucket}/lake/",
                    "template": TEMPLATE,
                    "key": "id",
                },
                "lines of requests": {"input_uri": f"s3://{server.bucket}/ready/lines.jsonl"},
            }
            rates: dict[str, list[float]] = {what: [] for what in inputs}
            print("| input | rows | seconds | rows/s | peak, MiB | prompt tokens |")
            print("|---|---|---|---|---|---|")
            with service(server, folder / "home") as (client, pid):
                estimate(
                    client,
                    pid,
                    {
                        "input_uri": f"s3://{server.bucket}/lake/dt=2026-11-01/",
                        "template": TEMPLATE,
                    },
                )
                for _ in range(given.rounds):
                    for what, options in inputs.items():
                        seconds, most, plan = estimate(client, pid, options)
                        assert plan["lines"] == given.rows, plan
                        rates[what].append(given.rows / seconds)
                        cells = [what, f"{plan['lines']:,}", f"{seconds:.1f}"]
                        cells += [f"{given.rows / seconds:,.0f}", f"{most / 2**20:,.0f}"]
                        print(f"| {' | '.join(cells)} | {plan['prompt_tokens']:,} |", flush=True)
            by_template, ready = (statistics.median(rates[what]) for what in inputs)
            share = by_template / ready
            print(f"\nRows by a template: {share:.1%} of the rate of lines.")
        finally:
            server.kill()


if __name__ == "__main__":
    main()
