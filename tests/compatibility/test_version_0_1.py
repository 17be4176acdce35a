"""What version 0.1 wrote still opens: a home folder, and a PostgreSQL database.

Both hold the same: a batch that is complete, and one that was planned when the service was killed.
``data/home-0.1.tar.gz`` is the home folder of ``tidemill run`` and ``tidemill up`` at 0.1.0;
``data/database-0.1.sql`` holds its rows in the schema that 0.1.0 made on PostgreSQL, as
``pg_dump --inserts`` wrote them. The batches expire a hundred years after they were made.
"""

import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest
from openai import OpenAI

from integration.support import Up, check_exactly_once, download
from stack.servers import Postgres

pytestmark = pytest.mark.slow

DATA = Path(__file__).parent / "data"
COMPLETE = "batch_01m8e8g9mbb3ay5hwm9jxcm7k9"
INTERRUPTED = "batch_01m8e8h424xgxfzzttrpgmhr43"
TEXTS = ["The capital of France is Paris.", "The prime number I'm referring to is"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    with tarfile.open(DATA / "home-0.1.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "home"


def check_batches(client: OpenAI) -> None:
    """The complete batch is as it was, and the interrupted one runs to its end."""
    assert [batch.id for batch in client.batches.list()] == [INTERRUPTED, COMPLETE]
    complete = client.batches.retrieve(COMPLETE)
    assert complete.status == "completed"
    texts = [
        line["response"]["body"]["choices"][0]["message"]["content"]
        for line in download(client, complete.output_file_id)
    ]
    assert texts == TEXTS
    deadline = time.monotonic() + 120
    while (batch := client.batches.retrieve(INTERRUPTED)).status != "completed":
        assert batch.status in ("in_progress", "finalizing"), batch
        assert time.monotonic() < deadline, batch
        time.sleep(0.1)
    lines = client.files.content(batch.input_file_id).text.splitlines()
    ids = [line.partition('"custom_id":"')[2].partition('"')[0] for line in lines]
    assert len(ids) == 4
    check_exactly_once(client, batch, ids)
    assert batch.request_counts is not None
    assert batch.request_counts.completed == 4


def test_a_home_folder_opens_and_its_interrupted_batch_ends(home: Path) -> None:
    up = Up(home).start()
    try:
        check_batches(up.client)
    finally:
        assert up.signal(signal.SIGTERM) == 0


@pytest.fixture
def database_url(tmp_path: Path) -> Iterator[str]:
    server = Postgres(tmp_path / "postgres").start()
    try:
        with psycopg.connect(server.url) as connection:
            connection.execute((DATA / "database-0.1.sql").read_bytes())
        yield server.url
    finally:
        server.kill()


@contextmanager
def process(name: str, variables: dict[str, str], log: Path) -> Iterator[str]:
    """``tidemill NAME``; gives the line that it prints once it is ready."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TIDEMILL_")}
    with log.open("w") as stderr:
        started = subprocess.Popen(
            [sys.executable, "-m", "tidemill", name],
            env=environment | variables,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    assert started.stdout is not None
    try:
        line = started.stdout.readline()
        assert line, log.read_text()
        yield line
    finally:
        started.send_signal(signal.SIGTERM)
        assert started.wait(60) == 0, log.read_text()
        started.stdout.close()


@pytest.mark.servers
def test_a_postgresql_database_opens_and_its_interrupted_batch_ends(
    home: Path, database_url: str, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    variables = {
        "TIDEMILL_HOME": str(tmp_path / "other-home"),
        "TIDEMILL_DATABASE_URL": database_url,
        "TIDEMILL_OBJECT_STORE_URL": (home / "objects").as_uri(),
        # A broker that is away: workers look at the rows by themselves.
        "TIDEMILL_BROKER_URL": f"redis://127.0.0.1:{port}/0",
        "TIDEMILL_RECONCILE_SECONDS": "0.5",
        "TIDEMILL_PORT": "0",
    }
    with ExitStack() as stack:
        ready = {
            name: stack.enter_context(process(name, variables, tmp_path / f"{name}.log"))
            for name in ("api", "worker", "reconciler")
        }
        url = ready["api"].split()[3]
        check_batches(OpenAI(base_url=url, api_key="unused"))
