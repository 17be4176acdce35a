"""What the engine answered to one chunk, kept out of memory where it is large.

With log-probabilities an answer can take many times its prompt, so the bodies go to a temporary
file once they pass a few megabytes; in memory stays where each one lies.
"""

import tempfile
from typing import Any

import orjson

MEMORY_BYTES = 8 * 1024 * 1024


class Answers:
    """Response bodies by plan position. Not for more than one thread at a time."""

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
        self._file.seek(self._end)
        self._file.write(data)
        self._places[position] = (self._end, len(data))
        self._end += len(data)

    def get(self, position: int) -> dict[str, Any] | None:
        """The body for a plan position, if there is one."""
        place = self._places.get(position)
        if place is None:
            return None
        start, size = place
        self._file.seek(start)
        body: dict[str, Any] = orjson.loads(self._file.read(size))
        return body

    def close(self) -> None:
        """Drop everything."""
        self._file.close()
