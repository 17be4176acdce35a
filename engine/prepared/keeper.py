"""A thread that writes a kept file while the engine runs. It fails in silence, and can be ended."""

import atexit
import fcntl
import logging
import os
import tempfile
import threading
from pathlib import Path

from engine.prepared.file import Contents, Stopped, write
from engine.prepared.folder import (
    SUFFIX,
    UNFINISHED,
    make_room,
    remove_unfinished,
    weights_folder,
)

log = logging.getLogger(__name__)

END_SECONDS = 0.1


class Keeper(threading.Thread):
    """Writes the weights of one fingerprint, unless they are kept already or there is no room.

    The file appears whole or not at all.

    Args:
        fingerprint: what the weights follow from.
        contents: the weights; nobody changes them any more.
    """

    def __init__(self, fingerprint: str, contents: Contents) -> None:
        super().__init__(name="keeper", daemon=True)
        self._fingerprint = fingerprint
        self._contents: Contents | None = contents
        self._stopped = threading.Event()

    def start(self) -> None:
        """Begin; at the exit of the interpreter it is ended as by `end`."""
        super().start()
        atexit.register(self.end)

    def run(self) -> None:
        """Write the file. See `threading.Thread`."""
        contents, self._contents = self._contents, None
        assert contents is not None, "a thread runs once"
        try:
            self._write(contents)
        except (OSError, Stopped) as error:
            log.debug("Prepared weights are not kept: %s", str(error) or "the engine ends")

    def end(self, seconds: float = END_SECONDS) -> None:
        """Wait so long for the end of the writing, then stop it."""
        self.join(seconds)
        self._stopped.set()
        self.join(END_SECONDS)

    def _write(self, contents: Contents) -> None:
        place = weights_folder()
        if place is None:
            return
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        remove_unfinished(place)
        target = place / f"{self._fingerprint}{SUFFIX}"
        size = sum(tensor.nbytes for tensor in contents.tensors.values())
        if target.exists() or not make_room(place, size):
            return
        handle, name = tempfile.mkstemp(UNFINISHED, dir=place)
        made = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                write(file, self._fingerprint, contents, self._stopped)
                file.flush()
                made.replace(target)
        except BaseException:
            made.unlink(missing_ok=True)
            raise


def end_keepers(seconds: float = END_SECONDS) -> None:
    """End what is being written in this process; see `Keeper.end`."""
    for thread in threading.enumerate():
        if isinstance(thread, Keeper):
            thread.end(seconds)
