"""Where the lines of a batch come from: the file of a dataset, and the row in it."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Origin:
    """A row of a dataset, from 1 in its file."""

    file: str
    row: int


class Origins:
    """The files of a dataset by the line of the batch that each begins with.

    A line's row is counted from there, as rows are numbered over all files.
    """

    def __init__(self, files: Iterable[tuple[int, str]] = ()) -> None:
        self._firsts: list[int] = []
        self._files: list[str] = []
        for first, file in files:
            self.add(first, file)

    def add(self, first_line: int, file: str) -> None:
        """The next file; one without rows gives its line to the one after it."""
        while self._firsts and self._firsts[-1] >= first_line:
            del self._firsts[-1], self._files[-1]
        self._firsts.append(first_line)
        self._files.append(file)

    def clear(self) -> None:
        """Forget all files."""
        self._firsts.clear()
        self._files.clear()

    def of(self, line: int) -> Origin | None:
        """Where a line comes from; ``None`` where the batch has no dataset."""
        at = bisect_right(self._firsts, line) - 1
        return Origin(self._files[at], line - self._firsts[at] + 1) if at >= 0 else None

    def of_lines(self, lines: Iterable[int]) -> tuple[tuple[int, str], ...]:
        """The files that these lines come from, in their order."""
        if not self._firsts:
            return ()
        found = sorted({bisect_right(self._firsts, line) - 1 for line in lines} - {-1})
        return tuple((self._firsts[at], self._files[at]) for at in found)


def described(origin: Origin | None) -> dict[str, Any]:
    """An origin's keys in JSON; none without a dataset."""
    return {} if origin is None else {"file": origin.file, "row": origin.row}
