"""What the engine answered to one chunk, kept out of memory where it is large.

With log-probabilities an answer can take many times its prompt, so the bodies go to a temporary
file once they pass a few megabytes; in memory stays where each one lies.
"""

import tempfile
from contextlib import suppress
from typing import Any

import orjson

from storage.disk import disk_error

MEMORY_BYTES = 8 * 1024 * 1024
FOLDER = "The folder for temporary files"


class ResponseSpool:
    """Response bodies by plan position. Not for more than one thread at a time.

    Its methods raise `OutOfSpace` where the disk is full, and `StorageError` where it is broken.
    """

    def __init__(self, memory_bytes: int = MEMORY_BYTES) -> None:
        # Closed by `close`, as it lives as long as this object.
        self._file = tempfile.SpooledTemporaryFile(max_size=memory_bytes)  # noqa: SIM115
        self._places: dict[int, tuple[int, int]] = {}
        self._end = 0

    def __len__(self) -> int:
        return len(self._places)

    def add(self, position: int, body: dict[str, Any]) -> None:
        """Keep the body for a plan position."""
        data = orjson.dumps(body)
        try:
            self._file.seek(self._end)
            self._file.write(data)
        except OSError as error:
            raise disk_error(error, FOLDER) from error
        self._places[position] = (self._end, len(data))
        self._end += len(data)

    def get(self, position: int) -> dict[str, Any] | None:
        """The body for a plan position, if there is one."""
        place = self._places.get(position)
        if place is None:
            return None
        start, size = place
        try:
            self._file.seek(start)
            data = self._file.read(size)
        except OSError as error:
            raise disk_error(error, FOLDER) from error
        body: dict[str, Any] = orjson.loads(data)
        return body

    def close(self) -> None:
        """Drop everything."""
        # What a full disk kept from being written is not wanted any more either.
        with suppress(OSError):
            self._file.close()
