"""What a process finds out when it starts."""

import shutil
import threading
import time
from collections import namedtuple
from collections.abc import Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import structlog

from storage import probes
from storage.database.connection import Database
from storage.database.startup import bring_up
from storage.errors import DatabaseUnavailable, ObjectStoreUnavailable, OutOfSpace
from storage.objects import ObjectStore
from storage.objects.base import StoreProbe
from storage.objects.local import LocalStore
from storage.probes import look_at_clock, look_at_store, probe_at_start
from storage.settings import StorageSettings
from storage.stores import Stores

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes every disk have so many free bytes."""

    def set_to(count: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1e12, 0, count))

    return set_to


def _probe(database: Database, store: ObjectStore, home: Path) -> list[MutableMapping[str, Any]]:
    """What is logged; the store is looked at in a thread, which has ended by then."""
    with structlog.testing.capture_logs() as logs:
        settings = StorageSettings(home=home)
        probe_at_start(settings, Stores(database, store, settings))
        for thread in threading.enumerate():
            if thread.name == "probe":
                thread.join(10)
    return logs


def test_nothing_is_said_where_all_is_well(
    database: Database, store: ObjectStore, tmp_path: Path, free: Callable[[int], None]
) -> None:
    free(50_000_000_000)
    assert _probe(database, store, tmp_path) == []


def test_a_disk_that_is_nearly_full_is_told_and_one_that_is_full_is_refused(
    database: Database, tmp_path: Path, free: Callable[[int], None]
) -> None:
    store = LocalStore(tmp_path / "objects")
    free(500_000_000)
    events = [entry["event"] for entry in _probe(database, store, tmp_path)]
    assert events == ["disk_nearly_full", "disk_nearly_full"]
    free(50_000_000)
    with pytest.raises(OutOfSpace, match="set TIDEMILL_HOME"):
        _probe(database, store, tmp_path)


def test_a_clock_that_differs_is_told(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    assert look_at_clock(database).ok
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 60)
    finding = look_at_clock(database)
    assert finding.found.startswith("60.")
    assert "ahead of the database" in finding.found
    assert "nothing is lost" in finding.meaning


class _Careless(LocalStore):
    """One that ignores conditional writes, as some S3 servers do; away at first."""

    away = 0

    def probe(self) -> StoreProbe:
        if self.away:
            self.away -= 1
            raise ObjectStoreUnavailable
        return StoreProbe(conditional_writes=False, free_bytes=None)


def test_a_store_that_ignores_conditions_is_told_with_what_it_means(
    database: Database, store: ObjectStore, tmp_path: Path
) -> None:
    assert look_at_store(store).ok
    (entry,) = _probe(database, _Careless(tmp_path / "careless"), tmp_path)
    assert entry["event"] == "conditional_writes_missing"
    assert "SHA-256" in entry["meaning"]


def test_a_store_that_is_away_keeps_nobody_from_starting(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "AGAIN_SECONDS", 0.01)
    store = _Careless(tmp_path / "careless")
    store.away = 3
    events = [entry["event"] for entry in _probe(database, store, tmp_path)]
    assert events == ["object_store_awaited", "conditional_writes_missing", "object_store_reached"]


def test_a_database_that_comes_up_late_is_waited_for(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []
    migrate = database.migrate

    def late() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise DatabaseUnavailable
        migrate()

    monkeypatch.setattr(database, "migrate", late)
    with structlog.testing.capture_logs() as logs:
        assert bring_up(database, seconds=20)
    events = [entry["event"] for entry in logs]
    assert events == ["database_awaited", "database_awaited", "database_reached"]


def test_waiting_ends_in_time_or_when_told() -> None:
    database = Database("postgresql+psycopg://someone:secret-word@127.0.0.1:1/none")
    with pytest.raises(DatabaseUnavailable) as caught:
        bring_up(database, seconds=0.3)
    assert "127.0.0.1:1/none" in str(caught.value)
    assert "secret-word" not in str(caught.value)
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    assert bring_up(database, seconds=60, stop=stop) is False
    database.close()


def test_many_processes_may_bring_it_up_at_once(database_url: str) -> None:
    databases = [Database(database_url) for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda each: bring_up(each, seconds=20), databases)) == [True] * 4
    for database in databases:
        with database.read() as session:
            assert database.now(session) > 0
        database.close()
