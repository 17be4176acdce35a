"""``tidemill api``, ``worker`` and ``reconciler`` as processes of their own."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from sqlmodel import select

from storage.database.connection import Database
from storage.database.states import ChunkState
from storage.database.tables import Chunk
from tidemill.client import Client

Start = Callable[..., "subprocess.Popen[str]"]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    """Settings that parts on one host can share; the broker is one that is away for good."""
    return {
        "TIDEMILL_HOME": str(tmp_path / "home"),
        "TIDEMILL_DATABASE_URL": f"sqlite:///{tmp_path / 'shared.db'}",
        "TIDEMILL_OBJECT_STORE_URL": (tmp_path / "objects").as_uri(),
        "TIDEMILL_BROKER_URL": f"redis://127.0.0.1:{_free_port()}/0",
        "TIDEMILL_RECONCILE_SECONDS": "0.3",
        "TIDEMILL_PORT": "0",
    }


@pytest.fixture
def start(variables: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """Starts a part; its log is ``NAME.log`` in the test's folder."""
    processes: list[subprocess.Popen[str]] = []

    def run(*command: str, **changes: str) -> "subprocess.Popen[str]":
        with (tmp_path / f"{command[0]}.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tidemill.cli.main", *command],
                env={**os.environ, **variables, **changes},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def _ready(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def _end(process: "subprocess.Popen[str]", seconds: float = 30) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(seconds)


def _results(url: str, lines: list[bytes]) -> tuple[str, int, int]:
    """Run a batch; its end, and how many lines were answered and failed."""
    with Client(url, None) as client:
        file = httpx.post(
            f"{url}/v1/files", files={"file": b"\n".join(lines)}, data={"purpose": "batch"}
        ).json()
        body = {
            "input_file_id": file["id"],
            "endpoint": "/v1/completions",
            "completion_window": "24h",
            "tidemill": {"on_invalid": "skip"},
        }
        batch = httpx.post(f"{url}/v1/batches", json=body).json()
        deadline = time.monotonic() + 60
        while (now := client.batch(batch["id"])).status not in ("completed", "failed"):
            assert time.monotonic() < deadline, now
            time.sleep(0.2)
        return now.status, now.request_counts.completed, now.request_counts.failed


@pytest.mark.slow
def test_the_parts_work_together_without_any_broker_and_end_when_told(
    start: Start, tmp_path: Path
) -> None:
    api, worker, reconciler = start("api"), start("worker"), start("reconciler")
    line = _ready(api)
    assert line.startswith("Tidemill listens on http://127.0.0.1:")
    assert " is ready: models all." in _ready(worker)
    assert _ready(reconciler).startswith("Reconciler ")
    # Bad lines alone: they go all the way, and need no engine.
    url = line.split()[3].removesuffix("/v1")
    assert _results(url, [b"{", b"["]) == ("completed", 0, 2)
    for process in (reconciler, worker, api):
        assert _end(process) == 0
    assert "worker_stopped" in (tmp_path / "worker.log").read_text()


@pytest.mark.slow
def test_metrics_are_served_where_they_are_asked_for(start: Start) -> None:
    port = _free_port()
    worker = start("worker", TIDEMILL_METRICS_PORT=str(port))
    _ready(worker)
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    assert "tidemill_database_up 1.0" in text
    assert 'tidemill_backlog_chunks{model="smollm2",state="pending"} 0.0' in text
    assert _end(worker) == 0


@pytest.mark.slow
def test_a_second_signal_ends_a_worker_at_once(start: Start) -> None:
    worker = start("worker", "--drain-seconds", "20")
    _ready(worker)
    worker.send_signal(signal.SIGSTOP)
    for number in (signal.SIGTERM, signal.SIGINT):
        worker.send_signal(number)
    worker.send_signal(signal.SIGCONT)
    assert worker.wait(10) in (128 + signal.SIGTERM, 128 + signal.SIGINT)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["api", "worker", "reconciler"])
def test_embedded_settings_are_refused(start: Start, tmp_path: Path, command: str) -> None:
    process = start(command, TIDEMILL_BROKER_URL="memory://", TIDEMILL_DATABASE_URL="")
    assert process.wait(60) == 1
    said = (tmp_path / f"{command}.log").read_text()
    assert f"'tidemill {command}'" in said
    for name in ("TIDEMILL_BROKER_URL", "TIDEMILL_DATABASE_URL", "tidemill up"):
        assert name in said


@pytest.mark.slow
def test_up_with_a_broker_needs_a_database_that_workers_share(start: Start, tmp_path: Path) -> None:
    process = start("up", TIDEMILL_DATABASE_URL="")
    assert process.wait(60) == 1
    assert "set TIDEMILL_DATABASE_URL" in (tmp_path / "up.log").read_text()


@pytest.mark.slow
def test_a_database_that_never_comes_is_named(start: Start, tmp_path: Path) -> None:
    url = f"postgresql://someone:secret-word@127.0.0.1:{_free_port()}/none"
    process = start("reconciler", TIDEMILL_DATABASE_URL=url, TIDEMILL_START_TIMEOUT_SECONDS="1")
    assert process.wait(60) == 1
    said = (tmp_path / "reconciler.log").read_text()
    assert "database_awaited" in said
    assert "did not answer within 1 seconds" in said
    assert "secret-word" not in said


@pytest.mark.slow
def test_waiting_for_a_database_ends_when_told(start: Start, tmp_path: Path) -> None:
    url = f"postgresql://someone@127.0.0.1:{_free_port()}/none"
    process = start("worker", TIDEMILL_DATABASE_URL=url)
    deadline = time.monotonic() + 60
    while "database_awaited" not in (tmp_path / "worker.log").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert _end(process) == 0


@pytest.mark.slow
def test_an_unknown_model_is_refused(start: Start, tmp_path: Path) -> None:
    process = start("worker", "--models", "smollm2,nothing")
    assert process.wait(60) == 2
    assert "There is no model nothing; there is smollm2." in (tmp_path / "worker.log").read_text()


@pytest.mark.slow
def test_chunks_in_hand_end_before_a_worker_does(
    start: Start, variables: dict[str, str], tmp_path: Path
) -> None:
    api = start("api")
    url = _ready(api).split()[3].removesuffix("/v1")
    worker = start("worker", TIDEMILL_CHUNK_LINES="4", TIDEMILL_MAX_NUM_SEQS="4")
    _ready(worker)
    rows = [
        b'{"custom_id":"r%d","method":"POST","url":"/v1/completions","body":{"model":"smollm2",'
        b'"prompt":"Count from %d:","max_tokens":2}}' % (i, i)
        for i in range(400)
    ]
    with httpx.Client(base_url=url, timeout=30) as http:
        file = http.post(
            "/v1/files", files={"file": b"\n".join(rows)}, data={"purpose": "batch"}
        ).json()
        body = {
            "input_file_id": file["id"],
            "endpoint": "/v1/completions",
            "completion_window": "24h",
        }
        batch = http.post("/v1/batches", json=body).json()
        deadline = time.monotonic() + 150
        while not http.get(f"/v1/batches/{batch['id']}").json()["request_counts"]["completed"]:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    assert _end(worker, 30) == 0
    said = (tmp_path / "worker.log").read_text()
    assert said.index('"chunk_done"') > 0
    database = Database(variables["TIDEMILL_DATABASE_URL"])
    with database.read() as session:
        chunks = list(session.exec(select(Chunk)))
    database.close()
    states = {chunk.state for chunk in chunks}
    assert states == {ChunkState.DONE, ChunkState.PENDING}, "none is left to a lease"
    assert {chunk.crashes for chunk in chunks} == {0}
    # What was in hand when the signal came was not thrown away.
    assert all(chunk.attempt == 0 for chunk in chunks if chunk.state == ChunkState.PENDING)
