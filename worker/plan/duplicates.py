"""Doubled custom_ids of an input of any length, in flat memory.

Each id's 128-bit digest goes to one of 256 files, by its first byte. The files are then searched
one after the other, so only about a 256th of the distinct ids is in memory at once. Fifty million
ids take 1.2 GB of disk and about 25 MB of memory.
"""

import hashlib
import heapq
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from worker.plan.spool import RecordSpool

_PARTITIONS = 256


class CustomIds:
    """Collects custom_ids line by line and then tells which are doubled."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = [
            RecordSpool(folder, f"ids-{index:03}", "<16sq") for index in range(_PARTITIONS)
        ]

    def add(self, custom_id: str, line: int, reported: bool = True) -> None:
        """Note the id of a line; lines come in ascending order.

        If not ``reported``, the line itself is never listed; it only makes later lines doubled.
        """
        digest = hashlib.blake2b(custom_id.encode(), digest_size=16).digest()
        self._seen[digest[0]].append(digest, line if reported else -line)

    def duplicates(self) -> Iterator[tuple[int, int]]:
        """(line, the first line with the same id) for every reported line that repeats an id.

        In line order. Can be called once: the collected ids are dropped as they are searched.
        """
        found: list[RecordSpool] = []
        for index, spool in enumerate(self._seen):
            doubled = RecordSpool(self._folder, f"doubled-{index:03}", "<qq")
            if _search(spool, doubled):
                found.append(doubled)
            spool.delete()
        yield from cast(Iterator[tuple[int, int]], heapq.merge(*found))


def _search(ids: RecordSpool, doubled: RecordSpool) -> bool:
    first_line: dict[bytes, int] = {}
    any_doubled = False
    for digest, line in cast(Iterator[tuple[bytes, int]], ids):
        first = first_line.setdefault(digest, abs(line))
        if line > first:
            doubled.append(line, first)
            any_doubled = True
    return any_doubled
