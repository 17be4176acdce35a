"""Many tiny jobs on an embedded worker, and tiny jobs beside large ones.

    python benchmarks/service/small_jobs.py --jobs 500
    python benchmarks/service/small_jobs.py --jobs 500 --against /path/to/an/earlier/checkout
    python benchmarks/service/small_jobs.py --jobs 0 --large-mib 1024

Each tiny job has one line, answered with one token; they are created one after another, as fast as
it goes, once the engine is loaded. The engine is the real one, in a process of its own. With
``--against`` the same is done with another checkout's code, before and after, in one run. A large
job holds good lines of about 1 KiB; while such jobs are validated, tiny ones are created one by
one, and what is told is how long each waits until it is planned and until it has ended.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
from sqlalchemy import func, select
from sqlmodel import col

from storage.database.connection import Database
from storage.database.states import TERMINAL_JOB_STATES, JobState
from storage.database.tables import Job
from storage.ids import new_id
from storage.jobs import jobs
from storage.jobs.jobs import NewJob
from storage.objects import object_keys
from storage.registry import files, models
from storage.registry.files import NewFile
from storage.settings import Settings
from storage.stores import Stores
from storage.wakeups import LocalWakeups, Wakeup
from tidemill.serve.logs import configure_logs
from worker.process.embedded import EmbeddedWorker

ENDPOINT = "/v1/completions"
TENANT = "default"
POLL_SECONDS = 0.05
LARGE_LINE = 1_024


def request_line(number: int, size: int = 0) -> bytes:
    """A request that is answered with one token; ``size`` is about how long its prompt is."""
    prompt = f"{number} is " + "a b c d e f g h " * (size // 16)
    body = {"prompt": prompt, "max_tokens": 1, "temperature": 0}
    row = {"custom_id": f"line-{number}", "method": "POST", "url": ENDPOINT, "body": body}
    return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)


def large_lines(mib: int) -> Iterator[bytes]:
    """The lines of the large job."""
    for number in range(mib * 1024 * 1024 // LARGE_LINE):
        yield request_line(number, LARGE_LINE - 128)


def create(stores: Stores, lines: Iterator[bytes], tenant: str = TENANT) -> str:
    """A job of these lines; its id."""
    file_id = new_id("file")
    key = object_keys.upload(tenant, file_id)
    with stores.objects.writer(key) as writer:
        for line in lines:
            writer.write(line)
    new = NewFile(
        file_id, tenant, "batch", "in.jsonl", writer.size, key, writer.info.etag, writer.sha256
    )
    file = files.insert(stores.database, new)
    return jobs.create_job(
        stores.database, NewJob(tenant, ENDPOINT, "30d", 2_592_000.0, file)
    ).job.id


def count(database: Database, *states: JobState) -> int:
    """Jobs in these states."""
    with database.read() as session:
        query = select(func.count()).select_from(Job).where(col(Job.state).in_(states))
        return int(session.scalars(query).one())


def drain_many(settings: Settings, stores: Stores, number: int) -> None:
    """Time from the creation of the first of so many jobs to the end of the last."""
    worker = EmbeddedWorker(settings, stores, LocalWakeups())
    worker.start()
    try:
        _wait(stores, create(stores, iter([request_line(0)])), ended=True)  # starts the engine
        began, computed = time.monotonic(), time.process_time()
        for each in range(number):
            create(stores, iter([request_line(each)]))
        while count(stores.database, *TERMINAL_JOB_STATES) <= number:
            time.sleep(POLL_SECONDS)
        seconds, computed = time.monotonic() - began, time.process_time() - computed
    finally:
        worker.stop()
    completed = count(stores.database, JobState.COMPLETED) - 1
    print(
        f"{number} jobs of one line: {number / seconds:.1f} a second, {completed} completed;"
        f" {seconds:.1f} s, for {computed:.1f} s of which the service and its client computed",
        flush=True,
    )


def beside_large_ones(settings: Settings, stores: Stores, options: argparse.Namespace) -> None:
    """How long tiny jobs wait while large ones are validated."""
    wakeups = LocalWakeups()
    worker = EmbeddedWorker(settings, stores, wakeups)
    worker.start()
    planned: list[float] = []
    ended: list[float] = []
    try:
        _wait(stores, create(stores, iter([request_line(0)])), ended=True)  # starts the engine
        large = [create(stores, large_lines(options.large_mib)) for _ in range(options.large)]
        wakeups.send(Wakeup.plan(large[0]))
        began = time.monotonic()
        while len(ended) < options.tiny and _validating(stores, large):
            time.sleep(1.0)
            at = time.monotonic()
            small = create(stores, iter([request_line(len(ended))]))
            wakeups.send(Wakeup.plan(small))
            _wait(stores, small, ended=False)
            planned.append(time.monotonic() - at)
            _wait(stores, small, ended=True)
            ended.append(time.monotonic() - at)
        print(
            f"{_validating(stores, large)} of {len(large)} jobs of {options.large_mib} MiB were"
            f" validating after {time.monotonic() - began:.0f} s; {len(ended)} tiny jobs beside"
            f" them: planned after {_range(planned)}, ended after {_range(ended)}",
            flush=True,
        )
    finally:
        worker.stop()


def _validating(stores: Stores, job_ids: list[str]) -> int:
    states = [jobs.load(stores.database, job_id).state for job_id in job_ids]
    return states.count(JobState.VALIDATING)


def _wait(stores: Stores, job_id: str, *, ended: bool) -> None:
    """Until a job is planned, or has ended."""
    while True:
        state = jobs.load(stores.database, job_id).state
        if state in TERMINAL_JOB_STATES or (state != JobState.VALIDATING and not ended):
            return
        time.sleep(0.01)


def _range(seconds: list[float]) -> str:
    if not seconds:
        return "-"
    return f"{statistics.median(seconds):.2f} s (at most {max(seconds):.2f} s)"


def measure(options: argparse.Namespace) -> None:
    """What was asked for, on a home of its own."""
    for large in (False, True):
        if not (options.large_mib if large else options.jobs):
            continue
        with tempfile.TemporaryDirectory(prefix="tidemill-small-jobs-") as folder:
            settings = Settings.load(home=Path(folder), log_level="ERROR")
            configure_logs("ERROR")
            with Stores.open(settings.storage) as stores:
                stores.database.migrate()
                models.ensure_default(stores.database, "smollm2", options.model)
                if large:
                    beside_large_ones(settings, stores, options)
                else:
                    drain_many(settings, stores, options.jobs)


def main() -> None:
    """Measure this checkout, after the other one if there is one."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=300, help="tiny jobs; 0: none")
    parser.add_argument("--large-mib", type=int, default=0, help="size of a large job; 0: none")
    parser.add_argument("--large", type=int, default=2, help="large jobs at once")
    parser.add_argument("--tiny", type=int, default=10, help="most tiny jobs beside the large ones")
    parser.add_argument("--model", default="smollm2", help="built-in name, folder or GGUF file")
    parser.add_argument("--against", type=Path, help="another checkout to measure first")
    options = parser.parse_args()
    if options.against is not None:
        given = [word for word in sys.argv[1:] if word not in ("--against", str(options.against))]
        environment = {**os.environ, "PYTHONPATH": str(options.against)}
        print(f"{options.against}:", flush=True)
        script = options.against / "benchmarks/service" / Path(__file__).name
        subprocess.run([sys.executable, str(script), *given], env=environment, check=True)
        print("this checkout:", flush=True)
    measure(options)


if __name__ == "__main__":
    main()
