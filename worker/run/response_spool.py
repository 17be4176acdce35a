"""The response bodies of one chunk, on disk once they are large.

With log-probabilities a body can be many times as large as its prompt. So beyond a few megabytes
the bodies go to a temporary file, and memory holds only the place of each.
"""

import tempfile
from contextlib import suppress
from typing import Any

import orjson

from storage.disk import disk_error
from worker.errors import TEMPORARY_FOLDER

Request = tuple[int, int]  # plan position, and which of the line's prompts

MEMORY_BYTES = 8 * 1024 * 1024


class ResponseSpool:
    """Response bodies by plan position, and by prompt of a line with several. For one thread.

    Its methods raise `OutOfSpace` where the disk is full, and `StorageError` where it is broken.
    """

    def __init__(self, memory_bytes: int = MEMORY_BYTES) -> None:
        # Closed by `close`, as it lives as long as this object.
        self._file = tempfile.SpooledTemporaryFile(max_size=memory_bytes)  # noqa: SIM115
        self._places: dict[Request, tuple[int, int]] = {}
        self._end = 0

    def __len__(self) -> int:
        return len(self._places)

    def add(self, request: Request, body: dict[str, Any]) -> None:
        """Keep the body for a request."""
        data = orjson.dumps(body)
        try:
            self._file.seek(self._end)
            self._file.write(data)
        except OSError as error:
            raise disk_error(error, TEMPORARY_FOLDER) from error
        self._places[request] = (self._end, len(data))
        self._end += len(data)

    def get(self, request: Request) -> dict[str, Any] | None:
        """The body for a request, if there is one."""
        place = self._places.get(request)
        if place is None:
            return None
        start, size = place
        try:
            self._file.seek(start)
            data = self._file.read(size)
        except OSError as error:
            raise disk_error(error, TEMPORARY_FOLDER) from error
        body: dict[str, Any] = orjson.loads(data)
        return body

    def close(self) -> None:
        """Drop everything."""
        # A full disk may keep the rest from being written: it is not needed any more.
        with suppress(OSError):
            self._file.close()
