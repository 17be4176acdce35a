"""What tells an input from every other: a digest of its bytes."""

import hashlib

from storage.datasets.readers.unpacked import open_unpacked
from storage.datasets.values.sources import Source
from storage.errors import InputNotUnderstood

READ_BYTES = 1024 * 1024


def source_digest(source: Source) -> str:
    """The SHA-256 of a source's bytes, unpacked where it is compressed with gzip.

    Raises:
        InputNotUnderstood: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open_unpacked(source.file, source.name, source.limits) as stream:
            while piece := stream.read(READ_BYTES):
                digest.update(piece)
    except OSError as error:
        raise InputNotUnderstood(f"{source.name} cannot be read: {error.strerror}.") from error
    return digest.hexdigest()
