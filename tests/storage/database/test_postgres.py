"""What is particular to PostgreSQL: connections that are cut, servers and clients that pause."""

import os
import signal
import threading
import time

import pytest
from sqlalchemy import text

from storage.database.connection import MIGRATION_LOCK, Database
from storage.database.postgres import LimitedConnection
from storage.errors import DatabaseUnavailable

pytestmark = pytest.mark.servers


def test_a_connection_that_is_cut(postgres_url: str) -> None:
    database = Database(postgres_url)

    def cut() -> None:
        with database.write() as session:
            pid = session.connection().execute(text("SELECT pg_backend_pid()")).scalar_one()
            with database.write() as other:
                other.connection().execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
            database.now(session)

    with pytest.raises(DatabaseUnavailable):
        cut()
    with database.read() as session:  # the pool has a living connection again
        assert database.now(session) > 0
    database.close()


def test_a_server_that_is_paused_is_not_waited_for(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LimitedConnection, "limit_seconds", 1.0)
    database = Database(postgres_url)
    backend = 0

    def ask() -> None:
        nonlocal backend
        with database.write() as session:
            backend = session.connection().execute(text("SELECT pg_backend_pid()")).scalar_one()
            os.kill(backend, signal.SIGSTOP)
            session.connection().execute(text("SELECT 1"))

    began = time.monotonic()
    try:
        with pytest.raises(DatabaseUnavailable):
            ask()
        assert time.monotonic() - began < 10
        with database.read() as session:  # the others are well
            assert database.now(session) > 0
    finally:
        os.kill(backend, signal.SIGCONT)
        database.close()


def test_a_client_that_is_paused_does_not_hold_its_locks_for_ever(postgres_url: str) -> None:
    database = Database(postgres_url)
    with database.read() as session:
        settings = {
            name: session.connection().execute(text(f"SHOW {name}")).scalar_one()
            for name in ("idle_in_transaction_session_timeout", "lock_timeout", "statement_timeout")
        }
    database.close()
    assert settings == {
        "idle_in_transaction_session_timeout": "10s",
        "lock_timeout": "10s",
        "statement_timeout": "30s",
    }


def test_a_migration_waits_for_another(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LimitedConnection, "limit_seconds", 0.5)
    first, second = Database(postgres_url), Database(postgres_url)
    with first.write() as session:
        session.connection().execute(
            text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK}
        )
        waiting = threading.Thread(target=second.migrate)
        waiting.start()
        waiting.join(2)
        assert waiting.is_alive()
    waiting.join(20)
    assert not waiting.is_alive()
    for database in (first, second):
        database.close()
