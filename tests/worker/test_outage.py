"""A worker process and a PostgreSQL that dies and comes back."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from stack.servers import Postgres
from storage.database.connection import Database
from storage.database.states import TERMINAL_JOB_STATES
from storage.errors import DatabaseUnavailable
from storage.ids import new_id
from storage.jobs import jobs
from storage.jobs.jobs import NewJob
from storage.objects import object_keys, open_store
from storage.registry import files
from storage.registry.files import NewFile
from storage.settings import Settings

pytestmark = [pytest.mark.servers, pytest.mark.slow]
SOON_SECONDS = 15.0


@pytest.fixture
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    server = Postgres(tmp_path_factory.mktemp("pg"))
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
def settings(postgres: Postgres, tmp_path: Path) -> Settings:
    # No broker anywhere: a worker that waited for one would never begin.
    return Settings.load(
        home=tmp_path, database_url=postgres.url, broker_url="redis://127.0.0.1:1/0"
    )


@pytest.fixture
def worker(settings: Settings, tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    variables = {
        "TIDEMILL_HOME": str(settings.storage.home),
        "TIDEMILL_DATABASE_URL": settings.storage.database_url,
        "TIDEMILL_BROKER_URL": settings.storage.broker_url,
    }
    with (tmp_path / "worker.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tidemill.cli.main", "worker"],
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    assert "is ready" in process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def _create(settings: Settings) -> str:
    """A job of bad lines alone: it goes all the way, and needs no engine."""
    database = Database(settings.storage.resolved_database_url)
    file_id = new_id("file")
    key = object_keys.upload("default", file_id)
    info = open_store(settings.storage).put(key, b"{\n[")
    file = files.insert(database, NewFile(file_id, "default", "batch", "in", 3, key, info.etag, ""))
    new = NewJob(
        "default", "/v1/completions", "24h", 86_400.0, file, options={"on_invalid": "skip"}
    )
    job_id = jobs.create_job(database, new).job.id
    database.close()
    return job_id


def _within(reached: Callable[[], bool], seconds: float) -> float:
    began = time.monotonic()
    while True:
        try:
            if reached():
                return time.monotonic() - began
        except DatabaseUnavailable:
            pass
        assert time.monotonic() - began < seconds
        time.sleep(0.1)


def _ended(settings: Settings, job_id: str) -> Callable[[], bool]:
    def look() -> bool:
        database = Database(settings.storage.resolved_database_url)
        try:
            return jobs.load(database, job_id).state in TERMINAL_JOB_STATES
        finally:
            database.close()

    return look


def _begun(settings: Settings, job_id: str) -> Callable[[], bool]:
    def look() -> bool:
        database = Database(settings.storage.resolved_database_url)
        try:
            return jobs.load(database, job_id).plan_epoch > 0
        finally:
            database.close()

    return look


def test_work_goes_on_soon_after_postgres_is_back(
    settings: Settings, postgres: Postgres, worker: "subprocess.Popen[str]"
) -> None:
    first = _create(settings)
    _within(_ended(settings, first), 60)
    postgres.kill()
    time.sleep(6)  # the worker has met it
    postgres.start()
    job_id = _create(settings)
    _within(_begun(settings, job_id), SOON_SECONDS)
    _within(_ended(settings, job_id), 60)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0


def test_a_worker_ends_in_time_though_postgres_is_paused(
    settings: Settings, postgres: Postgres, worker: "subprocess.Popen[str]"
) -> None:
    with psycopg.connect(postgres.url) as connection:
        backends = [
            pid
            for (pid,) in connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'tidemill'"
            )
        ]
    paused = [*backends, postgres.pid]
    try:
        for pid in paused:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(6)
        began = time.monotonic()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(40) == 0
        assert time.monotonic() - began < 32
    finally:
        for pid in paused:
            os.kill(pid, signal.SIGCONT)
