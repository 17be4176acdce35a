"""The same tests run on SQLite and a folder, and on real PostgreSQL and S3 servers.

A server that cannot start is an error of every test that needs it, never a silent skip.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlmodel import Session

from stack.servers import Postgres, Seaweed
from storage.database.connection import Database
from storage.database.tables import Job
from storage.errors import DatabaseUnavailable
from storage.ids import new_id
from storage.jobs import jobs, planning
from storage.jobs.planning import Plan, PlannedChunk
from storage.objects import ObjectStore, open_store
from storage.objects.local import LocalStore
from storage.registry import files
from storage.registry.files import NewFile
from storage.settings import StorageSettings

PART_BYTES = 5 * 1024 * 1024


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "tidemill.db"
    database = Database(f"sqlite:///{path}")
    database.migrate()
    database.close()
    return path


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server of this session, migrated."""
    server = Postgres(tmp_path_factory.mktemp("postgres")).start()
    try:
        url = StorageSettings.model_validate(server.settings).resolved_database_url
        database = Database(url)
        database.migrate()
        database.close()
        yield url
    finally:
        server.kill()  # nothing of it is kept


@pytest.fixture(scope="session")
def s3_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageSettings]:
    """A SeaweedFS server of this session, with one bucket."""
    server = Seaweed(tmp_path_factory.mktemp("seaweedfs")).start()
    try:
        yield StorageSettings.model_validate(server.settings | {"s3_part_bytes": PART_BYTES})
    finally:
        server.kill()


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
        session.connection().execute(text("TRUNCATE shard, output, chunk, job, file, model"))
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
    settings: StorageSettings = request.getfixturevalue("s3_settings")
    place = f"{settings.object_store_url}/{uuid4().hex}"
    return open_store(settings.model_copy(update={"object_store_url": place}))


@pytest.fixture
def new_file() -> Callable[..., NewFile]:
    """Makes `files.NewFile` values; keyword arguments are its fields."""

    def make(**changes: Any) -> NewFile:
        file_id = changes.pop("id", None) or new_id("file")
        values: dict[str, Any] = {
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
        values: dict[str, Any] = {
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
