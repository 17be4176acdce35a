"""Races, forced: one change is held open just before its commit while another one is made.

Each part has a connection of its own, as another process would have. What the second does before
the first commits differs: it waits, or it passes over what is locked.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from sqlalchemy import text
from sqlmodel import Session

from storage.database.connection import Database
from storage.errors import NotFound, RetrySourceGone, StateConflict

Change = Callable[[Database], Any]
Race = Callable[[Change, Change], tuple[Any, Any]]


class HeldOpen(Database):
    """Its changes stop short of their commit until they are let go."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.changed = threading.Event()
        self.may_commit = threading.Event()

    @contextmanager
    def write(self) -> Iterator[Session]:
        with super().write() as session:
            yield session
            self.changed.set()
            assert self.may_commit.wait(30)


def race(url: str, first: Change, second: Change) -> tuple[Any, Any]:
    """Make the first change, then the second, then commit the first; both results.

    A change that lost its race has the error that tells so for a result.
    """
    held, free = HeldOpen(url), Database(url)
    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(settled, first, held)
        try:
            assert held.changed.wait(30), one.exception()
            two = threads.submit(settled, second, free)
            wait_until_stuck_or_done(free, two)
        finally:
            held.may_commit.set()
        results = one.result(30), two.result(30)
    held.close()
    free.close()
    return results


def settled(change: Change, database: Database) -> Any:
    try:
        return change(database)
    except (NotFound, RetrySourceGone, StateConflict) as error:
        return error


def wait_until_stuck_or_done(database: Database, second: "Future[Any]") -> None:
    deadline = time.monotonic() + 20
    while not second.done():
        assert time.monotonic() < deadline
        time.sleep(0.05)
        if database.dialect == "sqlite":
            time.sleep(0.2)  # it waits for the one write lock, from its first statement on
            return
        query = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        with database.read() as session:
            if session.connection().execute(text(query)).scalar_one():
                return


def won_and_lost(results: tuple[Any, Any]) -> None:
    """The first change was made, and the second was told that it came too late."""
    assert not isinstance(results[0], Exception)
    assert isinstance(results[1], StateConflict)
