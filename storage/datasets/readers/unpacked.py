"""The bytes of an input file, unpacked where it is compressed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from storage.datasets.values.sources import Limits
from storage.errors import DamagedData, DecodedTooLarge, InputNotUnderstood
from storage.streams.gzipped import decoded


@contextmanager
def open_unpacked(path: Path, name: str, limits: Limits) -> Iterator[BinaryIO]:
    """Open a file; gzip is unpacked as it is read.

    Raises:
        InputNotUnderstood: also while it is read: it is damaged, or holds more than the limit.
        OSError: it cannot be opened or read.
    """
    with path.open("rb") as file:
        try:
            yield decoded(file, max_bytes=limits.max_decoded_bytes)
        except (DamagedData, DecodedTooLarge) as error:
            raise InputNotUnderstood(f"{name} cannot be read: {error}") from error
