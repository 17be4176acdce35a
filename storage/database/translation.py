"""SQLAlchemy's errors as those of storage."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from storage.errors import (
    DatabaseLocked,
    DatabaseUnavailable,
    DatabaseUnusable,
    OutOfSpace,
    StorageError,
)

_DISK_FULL = frozenset({"53100"})
_READ_ONLY = "25006"  # a standby, in the middle of a failover
_SQLITE_DAMAGED = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})
_SQLITE_LOCKED = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
# Without 32 KiB for the file that its readers share, SQLite cannot even be opened.
_SQLITE_FULL = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})


@contextmanager
def translated() -> Iterator[None]:
    """Turn SQLAlchemy's errors into those of storage."""
    try:
        yield
    except PoolTimeout as error:
        raise DatabaseUnavailable("No database connection became free in time.") from error
    except DBAPIError as error:
        raise _translate(error) from error


def _translate(error: DBAPIError) -> StorageError:
    cause = error.orig
    if getattr(cause, "sqlstate", None) in _DISK_FULL or (
        isinstance(cause, sqlite3.Error)
        and getattr(cause, "sqlite_errorcode", None) in _SQLITE_FULL
    ):
        return OutOfSpace("The database's disk is full; free some space and try again.")
    if getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_IOERR_WRITE:
        # SQLite does not say whether a quota is used up or the disk fails.
        return OutOfSpace("The database cannot be written: a quota is used up, or the disk fails.")
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF  # without SQLite's details
    if code in _SQLITE_DAMAGED:
        return DatabaseUnusable("The database file is damaged; restore it from a copy.")
    if code in _SQLITE_LOCKED:
        return DatabaseLocked("The database is locked by another program.")
    away = isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated
    if away or getattr(cause, "sqlstate", None) == _READ_ONLY:
        return DatabaseUnavailable()
    return StorageError("The database refused the change.")
