"""The first thing a process does: wait for its database, and bring the schema up to date."""

import threading
import time

import structlog

from storage.database.connection import Database
from storage.errors import DatabaseLocked, DatabaseUnavailable

log = structlog.get_logger(__name__)

FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 2.0


def bring_up(database: Database, *, seconds: float, stop: threading.Event | None = None) -> bool:
    """Migrate; while the database is away try again, for at most ``seconds``.

    Safe when several processes do so at once. Returns false where ``stop`` was set meanwhile.

    Raises:
        DatabaseUnavailable: it did not answer in time, or was locked; the message names it.
        DatabaseUnusable: waiting would not help; the message names it.
    """
    stop = stop or threading.Event()
    where = database.url.render_as_string(hide_password=True)
    locked = f"The database {database.where} has been locked by another program for {seconds:g}"
    deadline = time.monotonic() + seconds
    pause = FIRST_PAUSE_SECONDS
    waited = False
    while not stop.is_set():
        try:
            database.migrate()
        except DatabaseUnavailable as error:
            left = deadline - time.monotonic()
            if left <= 0 and isinstance(error, DatabaseLocked):
                raise DatabaseLocked(
                    f"{locked} seconds. End that program, or let TIDEMILL_START_TIMEOUT_SECONDS "
                    "wait longer."
                ) from error
            if left <= 0:
                raise DatabaseUnavailable(
                    f"The database did not answer within {seconds:g} seconds: {where}. See that "
                    "it runs and that TIDEMILL_DATABASE_URL is right; "
                    "TIDEMILL_START_TIMEOUT_SECONDS waits longer."
                ) from error
            log.warning("database_awaited", database=where, seconds_left=round(left))
            waited = True
            stop.wait(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        else:
            if waited:
                log.info("database_reached", database=where)
            return True
    return False
