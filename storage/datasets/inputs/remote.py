"""Bytes of inputs that lie elsewhere: objects of S3 and of our own store, files of a folder.

Each reads one version: the one that a snapshot names.
"""

import errno
import io
import os
import stat
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from storage.errors import (
    ConfigurationError,
    InputModified,
    InputUriError,
    ObjectChanged,
    ObjectNotFound,
    ObjectStoreError,
    ObjectStoreUnavailable,
)
from storage.objects import ObjectStore

if TYPE_CHECKING:
    from storage.objects.s3_bucket import S3Bucket

ACCESS_DENIED = "input_access_denied"
READ_BYTES = 8 * 1024**2
SMALL_BYTES = 4 * 1024**2  # a smaller object is fetched whole, once
TAIL_BYTES = 1024**2  # a footer, which is read whenever a file is opened
WINDOW_BYTES = 1024**2  # fetched where less is asked for, as in small row groups
# The name is gone, or is that of something which is no file any more.
_OTHERS = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO)


@dataclass(frozen=True, slots=True)
class S3Object:
    """A `DataFile` in a bucket; other content than that of the ETag is `InputModified`."""

    uri: str
    key: str
    size: int
    etag: str
    bucket: "S3Bucket" = field(compare=False)
    kept: dict[int, bytes] = field(default_factory=dict, compare=False, repr=False)

    @property
    def version(self) -> Hashable:
        return self.etag

    @property
    def buffer_bytes(self) -> int:
        return READ_BYTES

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        with _unchanged(self.uri), self.bucket.stream(self.key, if_match=self.etag) as stream:
            yield stream

    def arrow(self) -> Any:
        return _arrow(Ranges(self._range, self.size, self.kept))

    def _range(self, start: int, end: int) -> bytes:
        with (
            _unchanged(self.uri),
            self.bucket.stream(self.key, start=start, end=end, if_match=self.etag) as stream,
        ):
            return stream.read()


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A `DataFile` of our own store, whose objects never change in place."""

    key: str
    size: int
    etag: str
    store: ObjectStore = field(compare=False)
    kept: dict[int, bytes] = field(default_factory=dict, compare=False, repr=False)

    @property
    def version(self) -> Hashable:
        return self.etag

    @property
    def buffer_bytes(self) -> int:
        return READ_BYTES

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        with self.store.reader(self.key, if_match=self.etag) as stream:
            yield stream

    def arrow(self) -> Any:
        # Asked for once: a folder's store may have to read a whole object to know its ETag.
        with self.store.reader(self.key, end=0, if_match=self.etag):
            return _arrow(Ranges(self._range, self.size, self.kept))

    def _range(self, start: int, end: int) -> bytes:
        with self.store.reader(self.key, start=start, end=end) as stream:
            return stream.read()


@dataclass(frozen=True, slots=True)
class HeldObject:
    """A `DataFile` of our own store that is small enough to be held in memory."""

    key: str
    etag: str
    data: bytes = field(compare=False, repr=False)

    @property
    def version(self) -> Hashable:
        return self.etag

    @property
    def buffer_bytes(self) -> int:
        return READ_BYTES

    def open(self) -> BinaryIO:
        return io.BytesIO(self.data)

    def arrow(self) -> Any:
        import pyarrow as pa

        return pa.BufferReader(self.data)


def stored(store: ObjectStore, key: str) -> StoredObject | HeldObject:
    """An object of our own store; a small one is fetched at once, by one request.

    Raises:
        ObjectNotFound: there is none.
    """
    info = store.head(key)
    if info.size > SMALL_BYTES:
        return StoredObject(key, info.size, info.etag, store)
    with store.reader(key) as stream:
        return HeldObject(key, info.etag, stream.read())


@dataclass(frozen=True, slots=True)
class FolderFile:
    """A `DataFile` of the service's machine; a file with another tag is `InputModified`."""

    uri: str
    path: Path
    size: int
    etag: str
    kept: dict[int, bytes] = field(default_factory=dict, compare=False, repr=False)

    @property
    def version(self) -> Hashable:
        return self.etag

    @property
    def buffer_bytes(self) -> int:
        return READ_BYTES

    def open(self) -> BinaryIO:
        try:
            file = io.BufferedReader(io.FileIO(self.path, opener=_at_once))
        except PermissionError as error:
            raise denied(self.uri) from error
        except OSError as error:
            if error.errno in _OTHERS:
                raise modified(self.uri) from error
            why = error.strerror or type(error).__name__
            raise ObjectStoreUnavailable(f"'{self.uri}' cannot be read now: {why}.") from error
        # What was opened is compared, not what has the name now.
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or file_tag(found) != self.etag:
            file.close()
            raise modified(self.uri)
        return file

    def arrow(self) -> Any:
        return _arrow(Ranges(self._range, self.size, self.kept))

    def _range(self, start: int, end: int) -> bytes:
        with self.open() as file:
            file.seek(start)
            return file.read(end - start)


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe would wait for who writes to it


def file_tag(found: os.stat_result) -> str:
    """What tells a file's version: another one is another file, or was written at another time."""
    return f"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}"


def denied(uri: str) -> InputUriError:
    """The error that names a file which the service may not read."""
    return InputUriError(
        f"The service may not read '{uri}'; give its credentials the right to list and to read it.",
        ACCESS_DENIED,
    )


def modified(uri: str) -> InputModified:
    """The error that names a file which is not the one of the snapshot."""
    return InputModified(
        f"'{uri}' was changed or deleted after the batch was created; create the batch again."
    )


class Ranges(io.RawIOBase):
    """A file that is read in ranges, mostly forward.

    Args:
        fetch: the bytes ``[start, end)``.
        kept: pieces by where they begin, which go up to the end; is filled, and may be shared.
    """

    def __init__(
        self, fetch: Callable[[int, int], bytes], size: int, kept: dict[int, bytes]
    ) -> None:
        self._fetch = fetch
        self._size = size
        self._kept = kept
        self._window = (0, b"")
        self._last = 0  # where the last piece that was fetched ended
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._size)
        if end <= self._at:
            return 0
        data = self._range(self._at, end)
        if len(data) != end - self._at:
            raise ObjectStoreUnavailable("An object came shorter than it is.")
        buffer[: len(data)] = data
        self._at = end
        return len(data)

    def _range(self, start: int, end: int) -> bytes:
        found = next((at for at in self._kept if at <= start), None)
        if found is not None:
            return self._kept[found][start - found : end - found]
        first, window = self._window
        if first <= start and end <= first + len(window):
            return window[start - first : end - first]
        small = self._size <= SMALL_BYTES
        if not small and (end < self._size or end - start > TAIL_BYTES):
            return self._ahead(start, end)
        first = 0 if small else start
        self._kept[first] = self._fetch(first, self._size)
        return self._kept[first][start - first : end - first]

    def _ahead(self, start: int, end: int) -> bytes:
        """A piece; with what follows, where it is small and close behind the one before it."""
        near, self._last = 0 <= start - self._last < WINDOW_BYTES, end
        if end - start >= WINDOW_BYTES or not near:
            return self._fetch(start, end)
        self._window = start, self._fetch(start, min(start + WINDOW_BYTES, self._size))
        return self._window[1][: end - start]


def _arrow(file: Ranges) -> Any:
    import pyarrow as pa

    return pa.PythonFile(file, mode="r")


@contextmanager
def _unchanged(uri: str) -> Iterator[None]:
    try:
        yield
    except (ObjectNotFound, ObjectChanged) as error:
        raise modified(uri) from error
    except ConfigurationError as error:
        raise denied(uri) from error
    except ObjectStoreError as error:
        if error.retryable:
            raise
        # Such as an object that was put into an archive.
        raise InputUriError(f"'{uri}' cannot be read: {error}", ACCESS_DENIED) from error
