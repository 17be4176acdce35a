"""What an input is read from: a file of this machine, or an object that lies elsewhere."""

import os
from collections.abc import Hashable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

COMPRESSED_SUFFIXES = (".gz", ".zst", ".zstd")


class DataFile(Protocol):
    """Bytes that can be read more than once. Equal ones are the same file."""

    def __hash__(self) -> int:
        """Equal for equal files."""

    @property
    def version(self) -> Hashable:
        """What is another one once the content is."""

    @property
    def buffer_bytes(self) -> int:
        """How much of a column Arrow is to ask for at once."""

    def open(self) -> AbstractContextManager[BinaryIO]:
        """The bytes from the first to the last."""

    def arrow(self) -> Any:
        """A ``pyarrow.NativeFile``, which reads here and there; PyArrow is loaded for it."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A `DataFile` of this machine's file system; its methods raise `OSError`."""

    path: Path

    @property
    def version(self) -> Hashable:
        found = self.path.stat()
        return found.st_mtime_ns, found.st_size

    @property
    def buffer_bytes(self) -> int:
        return 1 << 20

    def open(self) -> BinaryIO:
        return self.path.open("rb")

    def arrow(self) -> Any:
        import pyarrow as pa

        # As bytes: a file's name need not be UTF-8, which Arrow takes a text for.
        return pa.OSFile(os.fsencode(self.path))


def plain_name(name: str) -> str:
    """A file's name without the suffix that says how it is compressed."""
    suffix = next((end for end in COMPRESSED_SUFFIXES if name.lower().endswith(end)), "")
    return name[: len(name) - len(suffix)]
