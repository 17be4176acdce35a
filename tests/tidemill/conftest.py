"""A live API without a worker, for everything that needs no answers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from api.app import create_app
from storage.settings import Settings
from storage.stores import Stores
from storage.wakeups import LocalWakeups
from tidemill.client import Client
from tidemill.serve.server import ServerThread, listen, url_of


@pytest.fixture(scope="session")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose files the API of `api_url` may read where they lie."""
    return tmp_path_factory.mktemp("lake")


@pytest.fixture(scope="session")
def api_url(tmp_path_factory: pytest.TempPathFactory, lake: Path) -> Iterator[str]:
    """A live API, keyed with ``secret``, over SQLite and a folder."""
    home: Path = tmp_path_factory.mktemp("home")
    settings = Settings.load(
        home=home,
        api_keys="secret",
        dataset_uris=lake.as_uri(),
        output_uris=lake.as_uri(),
        env_file=None,
    )
    stores = Stores.open(settings.storage)
    stores.database.migrate()
    app = create_app(settings.api, stores=stores, wakeups=LocalWakeups())
    with listen("127.0.0.1", 0) as listener, ServerThread(app, listener, settings.api):
        yield url_of(listener)
    stores.close()


@pytest.fixture
def client(api_url: str) -> Iterator[Client]:
    """A client of that API."""
    with Client(api_url, "secret") as client:
        yield client
