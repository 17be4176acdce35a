"""Temporary files of records, for what the first pass cannot keep in memory.

Records that fit in a spool's buffer are never written to a file, so a small job needs none.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec

from worker.problems import Problem

_BLOCK_RECORDS = 4_096  # read at a time


class RecordSpool:
    """Fixed-size records, appended and then read in order. No file stays open between calls."""

    def __init__(self, folder: Path, name: str, layout: str, buffer_bytes: int = 16_384) -> None:
        self._folder = folder
        self._name = name
        self._struct = struct.Struct(layout)
        self._buffer = bytearray()
        self._limit = buffer_bytes
        self._size = 0

    @property
    def _path(self) -> Path:
        # Not made beforehand: of hundreds of spools most never need a file.
        return self._folder / self._name

    def append(self, *values: bytes | int) -> None:
        """Add one record."""
        self._buffer += self._struct.pack(*values)
        if len(self._buffer) >= self._limit:
            self._flush()

    def _flush(self) -> None:
        if self._buffer:
            with self._path.open("ab") as file:
                file.write(self._buffer)
            self._size += len(self._buffer)
            self._buffer.clear()

    def __iter__(self) -> Iterator[tuple[bytes | int, ...]]:
        if not self._size:
            yield from self._struct.iter_unpack(bytes(self._buffer))
            return
        self._flush()
        block_bytes = self._struct.size * _BLOCK_RECORDS
        for at in range(0, self._size, block_bytes):
            with self._path.open("rb") as file:
                file.seek(at)
                block = file.read(min(block_bytes, self._size - at))
            yield from self._struct.iter_unpack(block)

    def delete(self) -> None:
        """Drop the records."""
        self._buffer.clear()
        if self._size:
            self._path.unlink()
        self._size = 0


class ProblemSpool:
    """Problems, appended as JSON lines and then read in order. No file stays open between calls."""

    def __init__(self, path: Path, buffer_bytes: int = 65_536) -> None:
        self._path = path
        self._buffer = bytearray()
        self._limit = buffer_bytes
        self._spilled = False
        self.count = 0

    def append(self, problem: Problem) -> None:
        """Add one problem."""
        self._buffer += msgspec.json.encode(problem) + b"\n"
        self.count += 1
        if len(self._buffer) >= self._limit:
            self._flush()

    def _flush(self) -> None:
        with self._path.open("ab") as file:
            file.write(self._buffer)
        self._buffer.clear()
        self._spilled = True

    def __iter__(self) -> Iterator[Problem]:
        decoder = msgspec.json.Decoder(Problem)
        if not self._spilled:
            yield from decoder.decode_lines(bytes(self._buffer))
            return
        self._flush()
        at = 0
        block: list[bytes] = [b""]
        while block:
            with self._path.open("rb") as file:
                file.seek(at)
                block = file.readlines(self._limit)
                at = file.tell()
            for line in block:
                yield decoder.decode(line)
