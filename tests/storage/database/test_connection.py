"""One schema, one clock and one set of errors on both databases."""

import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select, text
from sqlmodel import Session

from storage.database.connection import Database, now_sql
from storage.database.tables import METADATA, Model
from storage.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    OutOfSpace,
    StateConflict,
    StorageError,
)
from storage.registry import models


def test_the_migrated_schema_is_that_of_the_rows(database: Database) -> None:
    with database.read() as session:
        context = MigrationContext.configure(
            session.connection(), opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, METADATA) == []


def test_check_constraints_are_in_the_migrated_schema(database: Database) -> None:
    """Alembic does not compare these."""
    with database.read() as session:
        if database.dialect == "sqlite":
            query = "SELECT sql FROM sqlite_master WHERE name = 'chunk'"
        else:
            query = (
                "SELECT string_agg(conname || pg_get_constraintdef(oid), ' ') FROM pg_constraint"
                " WHERE conrelid = 'chunk'::regclass"
            )
        schema = session.connection().execute(text(query)).scalar_one()
    assert "done_counts" in schema
    assert "not_empty" in schema


def test_processes_that_start_together_migrate_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'home' / 'tidemill.db'}"
    _migrate_in_processes(url, 3)
    _check_usable(url)


@pytest.mark.servers
def test_processes_that_start_together_migrate_postgresql_once(postgres_url: str) -> None:
    database = Database(postgres_url)
    with database.write() as session:
        session.connection().execute(text("DROP SCHEMA public CASCADE"))
        session.connection().execute(text("CREATE SCHEMA public"))
    database.close()
    _migrate_in_processes(postgres_url, 3)
    _check_usable(postgres_url)


def _migrate_in_processes(url: str, count: int) -> None:
    code = f"from storage.database.connection import Database; Database({url!r}).migrate()"
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(count)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()


def _check_usable(url: str) -> None:
    database = Database(url)
    assert models.add(database, "m", "/models/m").source == "/models/m"
    database.close()


def test_sqlite_commits_are_durable(database: Database) -> None:
    if database.dialect != "sqlite":
        with database.read() as session:
            setting = session.connection().execute(text("SHOW synchronous_commit")).scalar_one()
        assert setting == "on"
        return
    with database.read() as session:
        connection = session.connection()
        assert connection.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar_one() == 2
        assert connection.execute(text("PRAGMA foreign_keys")).scalar_one() == 1


def test_the_clock_is_the_epoch_and_advances(database: Database) -> None:
    with database.read() as session:
        first = database.now(session)
        time.sleep(0.02)
        second = database.now(session)
    assert abs(first - time.time()) < 5
    assert 0.01 < second - first < 5


def test_a_failed_write_leaves_nothing(database: Database) -> None:
    def fail() -> None:
        with database.write() as session:
            session.add(Model(name="m", source="s", created_at=0.0))
            session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert models.list_models(database) == []


def test_a_read_never_waits_for_a_writer(database: Database) -> None:
    with database.write() as session:
        session.add(Model(name="m", source="s", created_at=0.0))
        session.flush()
        assert models.list_models(database) == []
    assert [model.name for model in models.list_models(database)] == ["m"]


def test_a_refused_change_is_an_error_of_this_floor(database: Database) -> None:
    models.add(database, "m", "s")
    with pytest.raises(StorageError), database.write() as session:
        session.add(Model(name="m", source="other", created_at=0.0))


def test_a_database_that_cannot_be_reached() -> None:
    database = Database("postgresql+psycopg://nobody@127.0.0.1:1/none?connect_timeout=2")
    with pytest.raises(DatabaseUnavailable), database.read() as session:
        database.now(session)
    database.close()


def test_a_full_disk_is_out_of_space(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'small.db'}")
    database.migrate()

    def fill() -> None:
        with database.write() as session:
            # The page limit makes SQLite itself report that the disk is full.
            session.connection().execute(text("PRAGMA max_page_count = 1"))
            for number in range(200):
                session.add(Model(name=f"{number}" * 100, source="s" * 1000, created_at=0.0))

    with pytest.raises(OutOfSpace):
        fill()
    database.close()


@pytest.mark.parametrize("url", ["mysql://x/y", "", "not a url"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        Database(url)


def test_settle_tries_again_until_the_answer_arrives(lossy: Any) -> None:
    lossy.losses = 2
    runs = []

    def change(session: Session) -> int:
        runs.append(lossy.now(session))
        return len(runs)

    assert lossy.settle(change) == 3
    lossy.losses = 100
    with pytest.raises(DatabaseUnavailable):
        lossy.settle(change, seconds=0.1)


def test_settle_does_not_repeat_a_lost_race(database: Database) -> None:
    runs = []

    def change(session: Session) -> None:
        runs.append(1)
        raise StateConflict

    with pytest.raises(StateConflict):
        database.settle(change)
    assert len(runs) == 1


def test_many_threads_write_in_turn(database: Database) -> None:
    names = [f"model-{number}" for number in range(40)]
    threads = [
        threading.Thread(target=models.add, args=(database, name, "source")) for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {model.name for model in models.list_models(database)} == set(names)


def test_two_processes_write_sqlite_in_turn(tmp_path: Path) -> None:
    """A writer in another process is waited for; it is not an error."""
    path = tmp_path / "tidemill.db"
    database = Database(f"sqlite:///{path}")
    database.migrate()
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.3, other.execute, args=("COMMIT",))
    timer.start()
    assert models.add(database, "m", "s").name == "m"
    timer.join()
    other.close()
    database.close()


def test_now_is_usable_in_arithmetic(database: Database) -> None:
    with database.read() as session:
        now = database.now(session)
        later = session.scalars(select(now_sql() + 45.0)).one()
    assert 44.9 < later - now < 60
