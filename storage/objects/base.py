"""The interface of every object store; `storage.objects.local` and `storage.objects.s3` have it."""

import hashlib
import io
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from storage.errors import InvalidKey, ObjectExists, ObjectNotFound, ObjectStoreUnavailable

COPY_BYTES = 1 << 20
_KEY = re.compile(r"[\w%+=@~-][\w%+=@~.-]*(/[\w%+=@~-][\w%+=@~.-]*)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What is known of an object. ``modified`` is seconds since the epoch on the store's clock.

    ``etag`` identifies this content, for a later ``if_match``. ``sha256`` is a hex digest, or
    ``None`` where the store does not know it.
    """

    key: str
    size: int
    etag: str
    sha256: str | None
    modified: float


@dataclass(frozen=True, slots=True)
class StoreProbe:
    """Whether a store honours conditional writes, and its free space where it can tell."""

    conditional_writes: bool
    free_bytes: int | None


class ObjectWriter(Protocol):
    """An object being written. It becomes visible when the context exits cleanly."""

    @property
    def size(self) -> int:
        """Bytes written so far."""

    @property
    def sha256(self) -> str:
        """Hex digest of the bytes written so far."""

    @property
    def info(self) -> ObjectInfo:
        """The finished object; only after a clean exit."""

    def write(self, data: bytes) -> int:
        """Append ``data`` and return its length."""


class ReadableStore(Protocol):
    """Reading objects; every method may raise `ObjectStoreUnavailable` and `InvalidKey`."""

    def reader(
        self, key: str, *, start: int = 0, end: int | None = None, if_match: str | None = None
    ) -> AbstractContextManager[BinaryIO]:
        """Stream bytes ``[start, end)``, cut at the object's end.

        Raises:
            ObjectNotFound: there is none.
            ObjectChanged: its ETag is not ``if_match``.
        """

    def head(self, key: str) -> ObjectInfo:
        """What is known of the object, or `ObjectNotFound`."""


class ObjectStore(ReadableStore, Protocol):
    """Objects under keys like ``parts/batch_…/0-128/1.jsonl``; contents never change in place.

    A conditional write (``if_absent``) of a key that exists succeeds where the object holds the
    same bytes, since a write whose response was lost is sent again; else it is `ObjectExists`.
    Every method may raise `ObjectStoreUnavailable`, `OutOfSpace` and `InvalidKey`.
    """

    def put(
        self,
        key: str,
        data: bytes | BinaryIO,
        *,
        if_absent: bool = False,
        sha256: str | None = None,
    ) -> ObjectInfo:
        """Write a whole object. ``sha256``, where given, is checked (`ContentMismatch`)."""

    def writer(
        self, key: str, *, if_absent: bool = False, sha256: str | None = None
    ) -> AbstractContextManager[ObjectWriter]:
        """Write an object piece by piece in flat memory; an exception leaves nothing visible."""

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """The objects whose keys start with ``prefix``, in key order."""

    def sweep(self, older_than: float, *, keys: re.Pattern[str] | None = None) -> int:
        """Delete unfinished writes older than ``older_than`` seconds; how many there were.

        Where it is known whether their writers live, the age does not matter. Where it is known
        which keys they are of, ``keys`` leaves out all that it does not match as a whole.
        """

    def probe(self) -> StoreProbe:
        """Try a conditional write, and measure free space."""


def check_key(key: str) -> None:
    """Raise `InvalidKey` unless ``key`` is a plain relative path without hidden segments."""
    if len(key) > 900 or not _KEY.fullmatch(key):
        raise InvalidKey(f"Not a usable object key: {key[:100]!r}.")


def accept_same(store: ReadableStore, key: str, sha256: str) -> ObjectInfo:
    """After a refused conditional write: the object that is there, if it holds the same bytes.

    The bytes are read. The digest in an object's metadata only says what its writer meant to store:
    some stores keep it even where the body never arrived.

    Raises:
        ObjectExists: it holds others.
        ObjectStoreUnavailable: the object is gone; the write can be tried again.
    """
    try:
        info = store.head(key)
        with store.reader(key, if_match=info.etag) as stream:
            found = digest(stream)
    except ObjectNotFound:
        raise ObjectStoreUnavailable(f"{key} was not kept; write it again.") from None
    if found != sha256:
        raise ObjectExists(f"{key} exists already with other content.")
    return info


def digest(stream: BinaryIO) -> str:
    """The SHA-256 of the rest of ``stream``, as a hex digest."""
    hasher = hashlib.sha256()
    while data := stream.read(COPY_BYTES):
        hasher.update(data)
    return hasher.hexdigest()


def copy(data: bytes | BinaryIO, writer: ObjectWriter) -> None:
    """Write all of ``data``."""
    stream = io.BytesIO(data) if isinstance(data, bytes) else data
    while data := stream.read(COPY_BYTES):
        writer.write(data)
