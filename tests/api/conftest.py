"""A real service: uvicorn on a free port, SQLite and a folder, driven by the `openai` client."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvicorn
from openai import OpenAI

from api.app import create_app
from storage.database import Database
from storage.objects import ObjectStore, open_store
from storage.settings import Settings
from storage.wakeups import Wakeups, celery_app


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

    def http(self) -> httpx.Client:
        """The same without the client's habits."""
        return self.clients.enter_context(httpx.Client(base_url=self.url, timeout=30))


@contextmanager
def serve(settings: Settings) -> Iterator[Service]:
    """Run a service in a thread."""
    database = Database(settings.resolved_database_url)
    database.migrate()
    store = open_store(settings)
    wakeups = Wakeups(celery_app(settings))
    app = create_app(settings, database=database, store=store, wakeups=wakeups)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
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
        database.close()


def local_settings(home: Path, **values: object) -> Settings:
    return Settings.model_validate({"home": home, **values})


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serve(local_settings(tmp_path_factory.mktemp("service"))) as running:
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
