"""The bytes of an input file, unpacked where it is compressed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from storage.datasets.values.files import DataFile
from storage.datasets.values.sources import Limits
from storage.errors import DamagedData, DecodedTooLarge, InputNotUnderstood
from storage.streams.gzipped import decoded


@contextmanager
def open_unpacked(file: DataFile, name: str, limits: Limits) -> Iterator[BinaryIO]:
    """Open a file; gzip and Zstandard are unpacked as it is read.

    Raises:
        InputNotUnderstood: also while it is read: it is damaged, or holds more than the limit.
        OSError, StorageError: it cannot be opened or read.
    """
    with file.open() as stream:
        try:
            yield decoded(stream, max_bytes=limits.max_decoded_bytes, heartbeat=limits.heartbeat)
        except (DamagedData, DecodedTooLarge) as error:
            raise InputNotUnderstood(f"{name} cannot be read: {error}") from error
