"""Objects as files under a folder: written to a staging file, synced, then linked into place.

A file's SHA-256 is its ETag. It is kept in an extended attribute, with the file's modification
time, so that it travels with the file and an edit from outside is noticed. Where the file system
has no such attributes, or the folder was copied without them, it is computed again.
"""

import errno
import hashlib
import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast
from uuid import uuid4

from storage.disk import FULL
from storage.errors import (
    ContentMismatch,
    ObjectChanged,
    ObjectExists,
    ObjectNotFound,
    ObjectStoreError,
    ObjectStoreUnavailable,
    OutOfSpace,
)
from storage.objects.base import ObjectInfo, StoreProbe, accept_same, check_key, copy, digest
from storage.objects.staging import staging_file, sweep

BUFFER_BYTES = 1 << 18
_ATTRIBUTE = "user.tidemill.sha256"
_STAGING = ".staging"  # keys never start with a dot, so no object can be in it
_PASSING = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE})


class LocalStore:
    """An `ObjectStore` in a folder, for one machine. The folder is made at the first write."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def staging(self) -> Path:
        """The folder of files that are being written."""
        return self.root / _STAGING

    def put(
        self,
        key: str,
        data: bytes | BinaryIO,
        *,
        if_absent: bool = False,
        sha256: str | None = None,
    ) -> ObjectInfo:
        with self.writer(key, if_absent=if_absent, sha256=sha256) as writer:
            copy(data, writer)
        return writer.info

    @contextmanager
    def writer(
        self, key: str, *, if_absent: bool = False, sha256: str | None = None
    ) -> Iterator["LocalWriter"]:
        check_key(key)
        with ExitStack() as stack:
            with _translated(key):
                staged = stack.enter_context(staging_file(self.staging))
            aside, file = staged
            writer = LocalWriter(file, key)
            yield writer
            if sha256 not in (None, writer.sha256):
                raise ContentMismatch()
            writer.seal()
            writer.info = self._publish(aside, key, writer.sha256, if_absent=if_absent)

    @contextmanager
    def reader(
        self, key: str, *, start: int = 0, end: int | None = None, if_match: str | None = None
    ) -> Iterator[BinaryIO]:
        check_key(key)
        with _translated(key):
            file = self._path(key).open("rb", buffering=0)
        with file:
            with _translated(key):
                if if_match is not None and _sha256(file) != if_match:
                    raise ObjectChanged(f"{key} is not the object that was asked for.")
                file.seek(start)
                size = os.fstat(file.fileno()).st_size
            stop = size if end is None else min(end, size)
            with io.BufferedReader(_Slice(file, key, stop - start), BUFFER_BYTES) as stream:
                yield cast(BinaryIO, stream)

    def head(self, key: str) -> ObjectInfo:
        check_key(key)
        with _translated(key), self._path(key).open("rb", buffering=0) as file:
            sha256 = _sha256(file)
            stat = os.fstat(file.fileno())
            return ObjectInfo(key, stat.st_size, sha256, sha256, stat.st_mtime)

    def delete(self, key: str) -> None:
        check_key(key)
        path = self._path(key)
        with _translated(key):
            path.unlink(missing_ok=True)
            # Only empty folders are removed; a writer that needs one makes it again.
            with suppress(OSError):
                for folder in path.parents:
                    if folder == self.root:
                        break
                    folder.rmdir()

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        found = []
        for parent, folders, names in os.walk(self.root / prefix.rpartition("/")[0]):
            folders[:] = [name for name in folders if not name.startswith(".")]
            found += [Path(parent, name).relative_to(self.root).as_posix() for name in names]
        for key in sorted(key for key in found if key.startswith(prefix)):
            with suppress(ObjectNotFound):
                yield self.head(key)

    def sweep(self, older_than: float, *, keys: re.Pattern[str] | None = None) -> int:
        with _translated(_STAGING):
            return sweep(self.staging, older_than)

    def probe(self) -> StoreProbe:
        key = f"probe/{uuid4().hex}"
        self.put(key, b"first", if_absent=True)
        try:
            self.put(key, b"second", if_absent=True)
            conditional = False
        except ObjectExists:
            conditional = True
        self.delete(key)
        space = os.statvfs(self.root)
        return StoreProbe(conditional, space.f_bavail * space.f_frsize)

    def _path(self, key: str) -> Path:
        return self.root / key

    def _publish(self, aside: Path, key: str, sha256: str, *, if_absent: bool) -> ObjectInfo:
        """Give the finished file its name, and sync its folders."""
        path = self._path(key)
        with _translated(key):
            try:
                _link(aside, path, if_absent=if_absent)
            except FileExistsError:
                return accept_same(self, key, sha256)
            finally:
                for folder in path.parents:
                    _sync_folder(folder)
                    if folder == self.root:
                        break
        return self.head(key)


class LocalWriter:
    """A `storage.objects.base.ObjectWriter` into a staging file."""

    def __init__(self, file: io.FileIO, key: str) -> None:
        self._file = file
        self._key = key
        self._hash = hashlib.sha256()
        self._size = 0
        # Not a BufferedWriter: on a full disk its close() raises again, a plain OSError.
        self._buffer = bytearray()
        self._info: ObjectInfo | None = None

    @property
    def size(self) -> int:
        return self._size

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    @property
    def info(self) -> ObjectInfo:
        if self._info is None:
            raise ObjectStoreError("The object is not finished.")
        return self._info

    @info.setter
    def info(self, info: ObjectInfo) -> None:
        self._info = info

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self._size += len(data)
        self._buffer += data
        if len(self._buffer) >= BUFFER_BYTES:
            self._flush()
        return len(data)

    def seal(self) -> None:
        """Write the rest and the digest, and sync them to the disk."""
        self._flush()
        with _translated(self._key):
            _remember(self._file.fileno(), self.sha256)
            os.fsync(self._file.fileno())
            self._file.close()  # a network file system may report its quota only here

    def _flush(self) -> None:
        with _translated(self._key), memoryview(self._buffer) as view:
            written = 0
            while written < len(view):
                written += self._file.write(view[written:]) or 0
        self._buffer.clear()


class _Slice(io.RawIOBase):
    """The next ``length`` bytes of an unbuffered file."""

    def __init__(self, file: io.FileIO, key: str, length: int) -> None:
        self._file = file
        self._key = key
        self._left = max(length, 0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with _translated(self._key):
            count = self._file.readinto(memoryview(buffer)[: self._left]) or 0
        self._left -= count
        return count


def _sha256(file: io.FileIO) -> str:
    """The digest of an open file: the attribute's if that is current, else computed."""
    if sys.platform == "linux":
        with suppress(OSError):
            modified, _, kept = os.getxattr(file.fileno(), _ATTRIBUTE).decode().partition(":")
            if modified == str(os.fstat(file.fileno()).st_mtime_ns):
                return kept
    computed = digest(cast(BinaryIO, file))
    _remember(file.fileno(), computed)
    return computed


def _remember(descriptor: int, sha256: str) -> None:
    if sys.platform == "linux":
        with suppress(OSError):
            value = f"{os.fstat(descriptor).st_mtime_ns}:{sha256}"
            os.setxattr(descriptor, _ATTRIBUTE, value.encode())


def _link(aside: Path, path: Path, *, if_absent: bool) -> None:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            if if_absent:
                os.link(aside, path)
            else:
                aside.replace(path)
        except FileNotFoundError:
            # `delete` removed the folder, then empty, between the two steps.
            if not aside.exists():
                raise
        else:
            return


def _sync_folder(folder: Path) -> None:
    with suppress(FileNotFoundError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _translated(key: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise ObjectNotFound(f"There is no object {key}.") from error
    except OSError as error:
        if error.errno in FULL:
            raise OutOfSpace() from error
        if error.errno in _PASSING:
            raise ObjectStoreUnavailable() from error
        raise ObjectStoreError(f"{key}: {error.strerror or 'input/output error'}.") from error
