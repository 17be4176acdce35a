"""A real service: uvicorn on a free port, SQLite and a folder, driven by the `openai` client."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import httpx
import pytest
import uvicorn
from openai import OpenAI

from api.app import create_app
from api.server.config import server_config
from storage.broker import open_wakeups
from storage.database.connection import Database
from storage.database.tables import Chunk, Job
from storage.ids import new_id
from storage.jobs import chunks, finalizing, planning
from storage.jobs.chunks import Counts
from storage.jobs.finalizing import Results
from storage.jobs.reconcile import reconcile
from storage.objects import ObjectStore, object_keys
from storage.objects.object_keys import ResultKind
from storage.registry.files import NewFile
from storage.settings import Settings
from storage.stores import Stores
from storage.wakeups import LocalWakeups, Wakeup, Wakeups


@dataclass(frozen=True)
class Service:
    """A running service and the parts under it."""

    url: str
    settings: Settings
    database: Database
    store: ObjectStore
    wakeups: Wakeups
    clients: ExitStack

    def openai(self, key: str = "none") -> OpenAI:
        """A client that is closed with the service."""
        client = OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=30)
        return self.clients.enter_context(client)

    def connect(self) -> socket.socket:
        """A bare connection, closed with the service at the latest."""
        host, port = self.url.removeprefix("http://").split(":")
        return self.clients.enter_context(socket.create_connection((host, int(port)), timeout=10))

    def http(self) -> httpx.Client:
        """The same without the client's habits."""
        return self.clients.enter_context(httpx.Client(base_url=self.url, timeout=30))

    def sent_wakeups(self) -> "SimpleQueue[Wakeup]":
        """Those that are sent from now on, without a broker."""
        assert isinstance(self.wakeups, LocalWakeups)
        heard: SimpleQueue[Wakeup] = SimpleQueue()
        self.clients.callback(self.wakeups.subscribe(heard.put))
        return heard


@contextmanager
def serve(settings: Settings) -> Iterator[Service]:
    """Run a service in a thread."""
    stores = Stores.open(settings.storage)
    database, store = stores.database, stores.objects
    database.migrate()
    wakeups = open_wakeups(settings.storage)
    app = create_app(settings.api, stores=stores, wakeups=wakeups)
    server = uvicorn.Server(server_config(app, settings.api, port=0))
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        assert thread.is_alive(), "the service did not start"
        assert time.monotonic() < deadline, "the service did not start in time"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        with ExitStack() as clients:
            yield Service(f"http://127.0.0.1:{port}", settings, database, store, wakeups, clients)
    finally:
        server.should_exit = True
        thread.join(20)
        stores.close()


@dataclass(frozen=True)
class Workers:
    """The workers' part in a batch's life, on the rows alone."""

    service: Service

    def create(self, client: OpenAI, **more: Any) -> str:
        """A batch of ten lines for them; its id."""
        made = client.files.create(file=("in.jsonl", b"{}\n" * 10), purpose="batch")
        return client.batches.create(
            input_file_id=made.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            **more,
        ).id

    def plan(self, job_id: str) -> None:
        """In chunks of six and four lines."""
        database = self.service.database
        job = planning.claim_plan(database, "planner", lease_seconds=45, job_id=job_id)
        assert job is not None
        planned = [
            planning.PlannedChunk(
                a, b, "smollm2", object_keys.plan(job_id, 1, a, b), 1, 10, 100 * (b - a)
            )
            for a, b in ((0, 6), (6, 10))
        ]
        plan = planning.Plan(10, planned, "smollm2", {"prompt_tokens": 1000}, n_invalid=1)
        planning.commit_plan(database, job_id, job.plan_epoch, plan)

    def claim(self) -> Chunk | None:
        return chunks.claim_chunk(
            self.service.database, "worker", ["smollm2"], lease_seconds=45, max_crashes=3
        )

    def commit(self, chunk: Chunk | None, counts: Counts) -> None:
        assert chunk is not None
        chunks.commit_chunk(
            self.service.database,
            chunk.id,
            chunk.attempt,
            part_key=object_keys.part(chunk.job_id, chunk.a, chunk.b, chunk.attempt),
            part_sha256="0" * 64,
            counts=counts,
        )

    def finalize(self, job_id: str, n_output: int, n_errors: int) -> None:
        database = self.service.database
        reconcile(database, max_crashes=3)
        job = finalizing.claim_finalize(database, "finalizer", lease_seconds=45, job_id=job_id)
        assert job is not None
        output = self._result(job, "output") if n_output else None
        errors = self._result(job, "errors") if n_errors else None
        results = Results(n_output, n_errors, output, errors)
        finalizing.commit_final(database, job_id, job.fin_epoch, results)

    def _result(self, job: Job, kind: ResultKind) -> NewFile:
        key = object_keys.result(job.id, job.fin_epoch, kind)
        info = self.service.store.put(key, kind.encode())
        assert info.sha256 is not None
        name = f"{job.id}_{kind}.jsonl"
        return NewFile(
            new_id("file"), "default", "batch_output", name, info.size, key, info.etag, info.sha256
        )


@pytest.fixture
def workers(service: Service) -> Workers:
    return Workers(service)


def local_settings(home: Path, **values: Any) -> Settings:
    return Settings.load(home=home, **values)


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serve(local_settings(tmp_path_factory.mktemp("service"))) as running:
        yield running


@pytest.fixture(scope="session")
def tight_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that waits for nothing very long."""
    settings = local_settings(
        tmp_path_factory.mktemp("tight"),
        idle_seconds=0.5,
        head_seconds=0.5,
        transfer_seconds=1.0,
        min_body_rate=100,
    )
    with serve(settings) as running:
        yield running


@pytest.fixture
def serve_with(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Start services with settings of a test's own."""
    with ExitStack() as stack:
        yield lambda **values: stack.enter_context(serve(local_settings(tmp_path, **values)))


@pytest.fixture(scope="session")
def client(service: Service) -> OpenAI:
    return service.openai()


@pytest.fixture(scope="session")
def http(service: Service) -> httpx.Client:
    return service.http()


@pytest.fixture(scope="session")
def input_id(client: OpenAI) -> str:
    """The id of an input file of one line."""
    line = b'{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {}}\n'
    return client.files.create(file=("in.jsonl", line), purpose="batch").id
