"""A whole job of very many tiny lines: rates and peak memory of planner, worker and finalizer.

    python benchmarks/scale.py --lines 1000000

Each phase runs in a process of its own, one after the other, on SQLite and a folder. The code is
the service's, and so is the tokenizer; only the engine is a double that answers at once, so the
figures are those of everything around it. At the end the output is checked against the input, line
by line: every line once, in order, with its own answer, and the counts of the job's row.

Memory is the peak resident set of the phase's process (``VmHWM``), Python and imports included.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import orjson

from engine.info import EngineInfo
from engine.requests import Completion, EngineStats, Output, Request
from storage.database.connection import Database
from storage.ids import new_id
from storage.jobs import jobs
from storage.jobs.jobs import NewJob
from storage.jobs.reconcile import reconcile
from storage.objects import object_keys, open_store
from storage.registry import files, models
from storage.registry.files import NewFile
from storage.settings import Settings
from storage.stores import Stores
from tidemill.serve.logs import configure_logs
from worker.context import WorkerContext
from worker.finish.finalizer import finalize_job
from worker.models.engines import Engines
from worker.models.tokenizers import load_text_model
from worker.plan.job import plan_job
from worker.run.drain import drain

MODEL = "smollm2"
ENDPOINT = "/v1/completions"
TENANT = "default"
AT_ONCE = 10_000  # lines written or checked together
LEASE_SECONDS = 600.0  # longer than any run: no worker dies here


class Double:
    """A stand-in for the engine: it answers each request at once, with its token ids as text."""

    alive = True
    pid = None

    def __init__(self) -> None:
        self._waiting: list[Request] = []

    def start(self, timeout: float = 300.0) -> EngineInfo:
        return EngineInfo("double", 8_192, 49_152, "cpu", "none", 1, 16, 256, 8_192, 0.0)

    def submit(self, requests: Sequence[Request]) -> None:
        self._waiting += requests

    def cancel(self, request_ids: Iterable[str]) -> None:
        self._waiting.clear()

    def flush(self) -> None:
        pass

    def poll(self, timeout: float) -> list[Completion]:
        batch, self._waiting = self._waiting[:256], self._waiting[256:]
        return [
            Completion(r.id, r.prompt, (Output(0, r.prompt[-4:], answer(r.prompt), "stop"),))
            for r in batch
        ]

    def stats(self) -> EngineStats:
        return EngineStats()

    def close(self, timeout: float = 10.0) -> None:
        pass


def answer(prompt: Iterable[int]) -> str:
    """The text that the stand-in answers a prompt with."""
    return " ".join(map(str, prompt))


def prompt_of(number: int) -> str:
    """The prompt of a line; one in ten repeats."""
    return f"Is {number if number % 10 else number % 1_000} even?"


def request_lines(count: int) -> Iterator[bytes]:
    """Batch requests of about 140 bytes."""
    for number in range(count):
        body = {"prompt": prompt_of(number), "max_tokens": 4, "temperature": 0}
        yield orjson.dumps(
            {"custom_id": f"line-{number}", "method": "POST", "url": ENDPOINT, "body": body},
            option=orjson.OPT_APPEND_NEWLINE,
        )


def create(home: Path, lines: int) -> str:
    """An uploaded input and its job; returns the job's id."""
    settings = Settings.load(home=home)
    database = Database(settings.storage.resolved_database_url)
    database.migrate()
    models.ensure_default(database, MODEL)
    file_id = new_id("file")
    key = object_keys.upload(TENANT, file_id)
    with open_store(settings.storage).writer(key) as writer:
        for line in request_lines(lines):
            writer.write(line)
    info = writer.info
    file = files.insert(
        database,
        NewFile(file_id, TENANT, "batch", "in.jsonl", info.size, key, info.etag, writer.sha256),
    )
    job_id = jobs.create_job(database, NewJob(TENANT, ENDPOINT, "30d", 30 * 86_400.0, file)).job.id
    database.close()
    return job_id


def plan(worker: WorkerContext, job_id: str) -> None:
    """The planner's part."""
    plan_job(worker, job_id)


def run(worker: WorkerContext, job_id: str) -> None:
    """The worker's part: claim, answer, write parts, commit."""
    drain(worker, MODEL)
    reconcile(worker.database, max_crashes=worker.settings.worker.max_crashes)


def finalize(worker: WorkerContext, job_id: str) -> None:
    """The finalizer's part."""
    finalize_job(worker, job_id)


PHASES: Mapping[str, Callable[[WorkerContext, str], None]] = {
    "plan": plan,
    "run": run,
    "finalize": finalize,
}


def run_phase(name: str, home: Path, job_id: str) -> dict[str, float]:
    """One phase in this process: wall and CPU seconds, memory before it and at its peak."""
    configure_logs("WARNING")
    settings = Settings.load(home=home, lease_seconds=LEASE_SECONDS)
    stores = Stores.open(settings.storage)
    opened = WorkerContext.open(settings, stores)
    worker = replace(opened, engines=Engines(settings.engine, lambda config: Double()))
    before = peak_bytes()
    began, cpu = time.monotonic(), time.process_time()
    PHASES[name](worker, job_id)
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    stores.close()
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "before_bytes": before,
        "peak_bytes": peak_bytes(),
    }


def peak_bytes() -> int:
    """The peak resident memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["VmHWM"].split()[0]) * 1024


def in_own_process(name: str, home: Path, job_id: str) -> dict[str, float]:
    """`run_phase` in a process that does nothing else."""
    command = [sys.executable, __file__, "--phase", name, "--home", str(home), "--job", job_id]
    ended = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    figures: dict[str, float] = json.loads(ended.stdout)
    return figures


def check(home: Path, job_id: str, lines: int) -> None:
    """Compare the output with the input; leaves with a message where they do not agree."""
    settings = Settings.load(home=home)
    database = Database(settings.storage.resolved_database_url)
    job = jobs.load(database, job_id)
    database.close()
    if (job.state, job.n_lines, job.n_ok, job.n_err) != ("completed", lines, lines, 0):
        raise SystemExit(f"The job ended as {job.state}: {job.n_ok} of {lines}, {job.errors}.")
    tokenizer = load_text_model(MODEL, MODEL).tokenizer
    with open_store(settings.storage).reader(job.out_key or "") as stream:
        for start in range(0, lines, AT_ONCE):
            numbers = range(start, min(start + AT_ONCE, lines))
            prompts = tokenizer.encode_batch([prompt_of(number) for number in numbers])
            rows = [orjson.loads(line) for line in islice(stream, len(numbers))]
            found = [(row["custom_id"], _text(row)) for row in rows]
            wanted = [(f"line-{n}", answer(p)) for n, p in zip(numbers, prompts, strict=True)]
            if found != wanted:
                raise SystemExit(f"The output differs in lines {numbers.start} to {numbers.stop}.")
        if stream.read(1):
            raise SystemExit("The output has more lines than the input.")


def _text(row: Mapping[str, object]) -> str:
    return str(row["response"]["body"]["choices"][0]["text"])  # type: ignore[index]


def measure(home: Path, lines: int) -> dict[str, dict[str, float]]:
    """All phases, one after the other, and the check of their result."""
    began = time.monotonic()
    job_id = create(home, lines)
    print(f"{lines:,} lines uploaded in {time.monotonic() - began:.1f} s", file=sys.stderr)
    figures: dict[str, dict[str, float]] = {}
    for name in PHASES:
        found = in_own_process(name, home, job_id)
        figures[name] = {**found, "lines_per_second": lines / found["seconds"]}
        print(
            f"{name:9}{found['seconds']:9.1f} s {lines / found['seconds']:12,.0f} lines/s"
            f"   cpu {found['cpu_seconds']:7.1f} s"
            f"   peak {found['peak_bytes'] / 2**20:7.1f} MiB"
            f"   (before: {found['before_bytes'] / 2**20:.1f} MiB)",
            file=sys.stderr,
        )
    check(home, job_id, lines)
    print("checked: every line once, in order, with its own answer", file=sys.stderr)
    return figures


def main() -> None:
    """Run it once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--home", type=Path, help="keep the data here")
    parser.add_argument("--phase", choices=PHASES, help=argparse.SUPPRESS)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.phase:
        print(json.dumps(run_phase(args.phase, args.home, args.job)))
        return
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(args.home or Path(folder), args.lines)
    if args.json:
        print(json.dumps({"lines": args.lines, **figures}))


if __name__ == "__main__":
    main()
