"""Whether the file of a SQLite database can be used, told before it is opened, by path and cause.

SQLite itself says no more than "unable to open database file", and says it of what passes too.
"""

import os
import sqlite3
from pathlib import Path

from storage.errors import DatabaseUnusable

_MAGIC = b"SQLite format 3\0"
REMEDY = (
    "Restore it from a copy; or move it away to begin with an empty one; or name another by "
    "TIDEMILL_HOME or TIDEMILL_DATABASE_URL."
)


def check_file(path: Path) -> None:
    """Make the file's folder, if it is missing, and look at the file, if there is one.

    A file of zero bytes is an empty database.

    Raises:
        DatabaseUnusable: it is no database, or this process may not read and write it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or "input/output error"
        raise DatabaseUnusable(
            f"The folder of the database {path} cannot be made: {reason}."
        ) from error
    if path.is_dir():
        raise DatabaseUnusable(f"The database {path} is a folder. {REMEDY}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise DatabaseUnusable(f"The folder of the database {path} cannot be written. {REMEDY}")
    try:
        with path.open("r+b") as file:
            head = file.read(len(_MAGIC))
    except FileNotFoundError:
        return
    except OSError as error:
        raise DatabaseUnusable(
            f"The database {path} cannot be used: {_reason(error)}. {REMEDY}"
        ) from error
    if head and head != _MAGIC:
        raise DatabaseUnusable(f"{path} is not a SQLite database. {REMEDY}")


def refused_statement(error: BaseException | None) -> bool:
    """Whether SQLite refused a statement as such: its tables are not those that it is for."""
    cause = getattr(error, "orig", None)
    return getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR


def _reason(error: OSError) -> str:
    return error.strerror or "input/output error"
