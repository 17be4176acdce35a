"""A streaming merge of parts into the input's line order.

Parts overlap where the plan's order differs from the input's, so this is a k-way merge over a heap.
A source is opened when its first line may be next and closed at its end: at most the parts of one
window are open at once, however long the input is.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from worker.errors import BrokenResult
from worker.run.parts import Record


@dataclass(frozen=True, slots=True)
class Source:
    """Records in ascending line order, none before ``first_line``."""

    first_line: int
    open: Callable[[], Iterator[Record]]


def merge(sources: Iterable[Source]) -> Iterator[Record]:
    """All records in line order. ``sources`` come in ascending order of ``first_line``.

    Raises:
        BrokenResult: a line comes twice, or a source is out of order.
    """
    waiting = iter(sources)
    upcoming = next(waiting, None)
    # (line, tie-break, record, rest of its source); the tie-break keeps records uncompared.
    heap: list[tuple[int, int, Record, Iterator[Record]]] = []
    opened = 0
    before = 0
    while heap or upcoming is not None:
        if upcoming is not None and (not heap or upcoming.first_line <= heap[0][0]):
            rest = upcoming.open()
            opened += 1
            if (record := next(rest, None)) is not None:
                heapq.heappush(heap, (record.line, opened, record, rest))
            upcoming = next(waiting, None)
            continue
        line, order, record, rest = heap[0]
        if line <= before:
            raise BrokenResult(f"Line {line} is in the parts twice, or out of order.")
        before = line
        yield record
        if (following := next(rest, None)) is None:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, (following.line, order, following, rest))


def most_overlapping(ranges: Iterable[tuple[int, int]]) -> int:
    """How many of these closed line ranges, in ascending order of start, overlap at most."""
    ends: list[int] = []
    most = 0
    for first, last in ranges:
        while ends and ends[0] < first:
            heapq.heappop(ends)
        heapq.heappush(ends, last)
        most = max(most, len(ends))
    return most
