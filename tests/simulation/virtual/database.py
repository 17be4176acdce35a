"""The product's database class on SQLite in memory, with a virtual clock and points of failure.

All threads share one connection, and a transaction runs from its beginning to its end without a
pause, as SQLite's write lock has it; threads are interleaved between transactions.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from sqlalchemy import Engine, StaticPool, create_engine
from sqlmodel import Session

import storage.database.connection
from simulation.virtual.points import Points
from storage.database.connection import Database
from storage.errors import DatabaseUnavailable

UNIX_EPOCH_JULIAN = 2440587.5


class Memory(Database):
    """One for a process of the test; `begin` empties it for a run.

    Attributes:
        connection: for whoever only looks: no session, no clock, no faults.
    """

    def __init__(self) -> None:
        self.points: Points | None = None
        self.changed: Callable[[str], None] = lambda what: None
        self._now = 0.0
        self.connection = sqlite3.connect(":memory:", cached_statements=1_000)
        self.connection.create_function("julianday", 1, self._julianday)
        with patch.object(storage.database.connection, "create_engine", self._engine):
            super().__init__("sqlite://")
        self.migrate()
        names = self.connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        self._tables = sorted(row[0] for row in names if row[0] != "alembic_version")

    def begin(self, points: Points, changed: Callable[[str], None]) -> None:
        """Start a run: nothing is in any table. ``changed`` hears of each transaction's writes."""
        self.points = points
        self.changed = changed
        self.connection.execute("PRAGMA foreign_keys = OFF")
        for table in self._tables:
            self.connection.execute(f'DELETE FROM "{table}"')
        self.connection.execute("PRAGMA foreign_keys = ON")

    @contextmanager
    def read(self) -> Iterator[Session]:
        if self.points is None:
            with super().read() as session:
                yield session
            return
        what = f"read {self.points.caller()}"
        self._before(what)
        with super().read() as session:
            yield session
        self._after(what)

    @contextmanager
    def write(self) -> Iterator[Session]:
        if self.points is None:
            with super().write() as session:
                yield session
            return
        what = self.points.caller()
        self._before(what)
        changes = self.connection.total_changes
        with super().write() as session:
            yield session
        self.points.note(what)
        if self.connection.total_changes != changes:
            self.changed(what)
        self._after(what)

    def _before(self, what: str) -> None:
        if self.points is not None and self.points.before(what):
            raise DatabaseUnavailable

    def _after(self, what: str) -> None:
        if self.points is not None and self.points.after(what):
            raise DatabaseUnavailable

    def _julianday(self, when: str) -> float:
        if when != "now":
            raise ValueError(when)
        now = self.points.now if self.points is not None else 0.0
        return UNIX_EPOCH_JULIAN + now / 86_400

    def _engine(self, url: Any, **options: Any) -> Engine:
        return create_engine(url, creator=lambda: self.connection, poolclass=StaticPool)
