"""Result files that are there whole or not at all, and what is no file: pipes and devices."""

import codecs
import os
import stat
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, cast

from tidemill import terminal
from tidemill.errors import TidemillError

STDOUT = Path("-")
_STDOUT_NAMES = frozenset({"/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"})


def output_path(path: Path) -> Path:
    """The path, or ``-`` where it is another name of standard output."""
    return STDOUT if str(path) in _STDOUT_NAMES else path


def is_stream(path: Path) -> bool:
    """Whether a path is written straight through: standard output, a pipe or a character device."""
    if path == STDOUT:
        return True
    with suppress(OSError):
        mode = path.stat().st_mode
        return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)
    return False


class WholeFile:
    """A file that takes its name once it is complete; ``-`` is standard output.

    An empty file is kept only where that is asked for, and a file that an earlier run left under
    its name is removed. Where the path is ``None``, what is written is thrown away. A symbolic link
    stays one. Pipes and devices are written straight through. On a terminal, characters that it
    would obey are written as JSON escapes.

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
        self._direct = path is None or is_stream(path)
        real = Path(os.path.realpath(path or os.devnull))
        self._final = real
        self._partial = real if self._direct else real.with_name(f".{real.name}.partial")

    def __enter__(self) -> Self:
        if self._path == STDOUT:
            self.stream = _standard_output()
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
        elif self._direct:
            self.stream.close()
            self.kept = self._path
        else:
            self._settle(complete=error is None)

    def _settle(self, *, complete: bool) -> None:
        try:
            size = self.stream.tell()
            self.stream.close()
            if complete and (size or self._keep_empty):
                self._partial.replace(self._final)
                self.kept = self._path
            elif complete:
                self._final.unlink(missing_ok=True)
        except OSError as error:
            raise TidemillError(f"{self._path} cannot be written: {error.strerror}.") from error
        finally:
            self._partial.unlink(missing_ok=True)

    def write_all(self, pieces: Iterable[bytes]) -> None:
        """Write every piece."""
        for piece in pieces:
            self.stream.write(piece)


def _standard_output() -> BinaryIO:
    if sys.stdout is None:
        raise TidemillError("Standard output is closed; name a file with --output.")
    if terminal.is_terminal():
        return cast("BinaryIO", _TerminalLines())
    return sys.stdout.buffer


class _TerminalLines:
    """JSON lines for a terminal. They are written as text, which holds the same values."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def write(self, data: bytes) -> int:
        terminal.put_text(terminal.json_printable(self._decoder.decode(data)))
        return len(data)

    def flush(self) -> None:
        terminal.flush()
