"""Checks at the start of a process: the disk, the clock and the object store.

Only a disk that is almost full keeps a process from starting. Other findings are logged, and shown
by ``tidemill doctor``.
"""

import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from storage.database.connection import Database
from storage.errors import OutOfSpace, StorageError
from storage.objects import ObjectStore
from storage.settings import StorageSettings
from storage.stores import Stores

log = structlog.get_logger(__name__)

CLOCK_SECONDS = 5.0
LITTLE_BYTES = 1_000_000_000
TOO_LITTLE_BYTES = 100_000_000
AGAIN_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check. ``meaning`` says what follows from it; empty where all is well."""

    found: str
    meaning: str = ""

    @property
    def ok(self) -> bool:
        """Whether all is well."""
        return not self.meaning


def look_at_clock(database: Database) -> Finding:
    """Compare this machine's clock with the database's.

    Raises:
        StorageError: the database cannot be asked.
    """
    with database.read() as session:
        database.now(session)  # connecting takes time; only the second read is measured
        before = time.time()
        theirs = database.now(session)
        ours = (before + time.time()) / 2
    ahead = ours - theirs
    found = f"{abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} the database"
    if abs(ahead) <= CLOCK_SECONDS:
        return Finding(found)
    return Finding(
        found,
        "Leases and completion windows go by the database's clock alone, so nothing is lost or "
        "done twice. The times in answers and logs are wrong by so much. Set up NTP.",
    )


def look_at_store(store: ObjectStore) -> Finding:
    """Whether the object store honours conditional writes.

    Raises:
        StorageError: it cannot be used.
    """
    if store.probe().conditional_writes:
        return Finding("honours conditional writes")
    return Finding(
        "ignores conditional writes (If-None-Match)",
        "One safeguard less: a part is then protected only by the attempt in its key and by the "
        "SHA-256 in its row, which the results are checked against.",
    )


def look_at_disk(folder: Path) -> Finding:
    """The free space where ``folder`` is or will be."""
    free = free_bytes(folder)
    found = f"{free / 1e9:,.1f} GB free"
    if free >= LITTLE_BYTES:
        return Finding(found)
    return Finding(found, f"Free some space in {folder}.")


def free_bytes(folder: Path) -> int:
    """Free bytes of the file system that ``folder`` is or will be on."""
    place = next(place for place in (folder, *folder.parents) if place.exists())
    return shutil.disk_usage(place).free


def folders(settings: StorageSettings) -> Iterator[tuple[str, Path]]:
    """The folders that a process writes to, each after the variable that moves it."""
    if settings.database_in_home or not settings.object_store_url:
        yield "TIDEMILL_HOME", settings.home
    yield "TMPDIR", Path(tempfile.gettempdir())


def probe_at_start(
    settings: StorageSettings, stores: Stores, stop: threading.Event | None = None
) -> None:
    """Check everything, and log what is wrong.

    The object store is checked in a thread, again and again until it responds or ``stop`` is set,
    so that a process can start while the store is away.

    Raises:
        OutOfSpace: a folder has no room to work in; the message says which.
        StorageError: the database cannot be asked.
    """
    for variable, folder in folders(settings):
        if free_bytes(folder) < TOO_LITTLE_BYTES:
            raise OutOfSpace(
                f"{folder} has less than {TOO_LITTLE_BYTES / 1e6:.0f} MB free, too little to work "
                f"with: free some space, or set {variable} to a folder elsewhere."
            )
        _warn("disk_nearly_full", look_at_disk(folder))
    _warn("clock_differs", look_at_clock(stores.database))
    thread = threading.Thread(
        target=_watch_store,
        args=(stores.objects, stop or threading.Event()),
        name="probe",
        daemon=True,
    )
    thread.start()


def _watch_store(store: ObjectStore, stop: threading.Event) -> None:
    warned = False
    while not stop.is_set():
        try:
            _warn("conditional_writes_missing", look_at_store(store))
        except StorageError as error:
            if not warned:
                log.warning("object_store_awaited", code=error.code, reason=str(error))
            warned = True
            stop.wait(AGAIN_SECONDS)
        else:
            if warned:
                log.info("object_store_reached")
            return


def _warn(event: str, finding: Finding) -> None:
    if not finding.ok:
        log.warning(event, found=finding.found, meaning=finding.meaning)
