"""Result files that are there whole or not at all."""

import sys
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from tidemill.errors import TidemillError

STDOUT = Path("-")


class WholeFile:
    """A file that takes its name once it is complete; ``-`` is standard output.

    An empty file is kept only where that is asked for, and a file that an earlier run left under
    its name is removed. Where the path is ``None``, what is written is thrown away.

    Attributes:
        stream: where to write.
        kept: the path after a clean exit, ``None`` where nothing was written.

    Raises:
        TidemillError: the file cannot be made.
    """

    stream: BinaryIO

    def __init__(self, path: Path | None, *, keep_empty: bool = False) -> None:
        self._keep_empty = keep_empty
        self.kept: Path | None = None
        self._path = path
        self._partial = path.with_name(f".{path.name}.partial") if path else Path("/dev/null")

    def __enter__(self) -> Self:
        if self._path == STDOUT:
            self.stream = sys.stdout.buffer
            return self
        try:
            self.stream = self._partial.open("wb")
        except OSError as error:
            raise TidemillError(f"{self._path} cannot be written: {error.strerror}.") from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._path == STDOUT:
            self.stream.flush()
            self.kept = self._path
            return
        if self._path is None:
            self.stream.close()
            return
        self._settle(self._path, complete=error is None)

    def _settle(self, path: Path, *, complete: bool) -> None:
        try:
            size = self.stream.tell()
            self.stream.close()
            if complete and (size or self._keep_empty):
                self._partial.replace(path)
                self.kept = path
            elif complete:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise TidemillError(f"{path} cannot be written: {error.strerror}.") from error
        finally:
            self._partial.unlink(missing_ok=True)

    def write_all(self, pieces: Iterable[bytes]) -> None:
        """Write every piece."""
        for piece in pieces:
            self.stream.write(piece)
