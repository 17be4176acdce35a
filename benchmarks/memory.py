"""Peak memory of the service while it takes in and plans a large file.

    python benchmarks/memory.py --gib 1 --line-bytes 1000

Starts ``tidemill up`` on an empty home, uploads a file of distinct chat requests, creates a batch,
and samples the resident memory of the service's process until the plan is committed or
``--seconds`` are over; then it cancels the batch. API, planner and reconciler share that process;
the engine has its own.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import IO, Self

import orjson
from openai import OpenAI

WORDS = (
    "the model answers a question about rivers, ships and the price of grain in the year {n}; "
    "it should be brief and name the place {n} "
)


def lines(total_bytes: int, line_bytes: int) -> Iterator[bytes]:
    """Distinct batch requests of about ``line_bytes`` each, ``total_bytes`` in all."""
    written = number = 0
    while written < total_bytes:
        number += 1
        text = (WORDS.format(n=number) * (line_bytes // 100 + 1))[: max(20, line_bytes - 160)]
        line = orjson.dumps(
            {
                "custom_id": f"line-{number}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {
                    "model": "smollm2",
                    "messages": [{"role": "user", "content": f"{number} {text}"}],
                    "max_tokens": 8,
                },
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )
        written += len(line)
        yield line


class Sampler(Thread):
    """Keeps the largest resident memory of a process, in bytes, between calls of `take`."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._status = Path(f"/proc/{pid}/status")
        self._peak = 0
        self._ended = False

    def run(self) -> None:
        while not self._ended:
            self._peak = max(self._peak, self._resident())
            time.sleep(0.1)

    def take(self) -> int:
        """The peak since the last call."""
        peak, self._peak = max(self._peak, self._resident()), 0
        return peak

    def _resident(self) -> int:
        fields = dict(line.split(":", 1) for line in self._status.read_text().splitlines())
        return int(fields["VmRSS"].split()[0]) * 1024

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended = True
        self.join()


def start(home: Path) -> tuple[subprocess.Popen[str], OpenAI]:
    """``tidemill up`` on a free port, and a client of it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tidemill.cli.main", "up", "--port", "0", "--home", str(home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("TIDEMILL_")},
    )
    assert process.stdout is not None
    found = re.search(r"http://\S+/v1", process.stdout.readline())
    if found is None:
        raise SystemExit("tidemill up did not start.")
    return process, OpenAI(base_url=found.group(), api_key="unused", timeout=3600)


def report(what: str, seconds: float, peak: int, detail: str = "") -> None:
    """Print one phase."""
    print(f"{what:10} {seconds:7.1f} s   peak {peak / 2**20:7.1f} MiB   {detail}", flush=True)


def measure(client: OpenAI, sampler: Sampler, source: IO[bytes], limit: float) -> None:
    """Upload, plan, cancel; report each."""
    report("idle", 0, sampler.take())
    began = time.monotonic()
    file = client.files.create(file=source, purpose="batch")
    report("upload", time.monotonic() - began, sampler.take(), f"{file.bytes:,} bytes")
    began = time.monotonic()
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    while batch.status == "validating" and time.monotonic() - began < limit:
        time.sleep(2)
        batch = client.batches.retrieve(batch.id)
        report("planning", time.monotonic() - began, sampler.take(), batch.status)
    total = batch.request_counts.total if batch.request_counts else 0
    seconds = time.monotonic() - began
    report("planned", seconds, sampler.take(), f"{total:,} lines, {total / seconds:,.0f} lines/s")
    client.batches.cancel(batch.id)


def main() -> None:
    """Run it once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gib", type=float, default=1.0)
    parser.add_argument("--line-bytes", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=1800)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "input.jsonl"
        with path.open("wb") as file:
            file.writelines(lines(int(args.gib * 2**30), args.line_bytes))
        process, client = start(Path(folder) / "home")
        try:
            with Sampler(process.pid) as sampler, path.open("rb") as source:
                measure(client, sampler, source, args.seconds)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(120)


if __name__ == "__main__":
    main()
