"""An object store in memory that keeps the contract of `storage.objects.base`, with faults."""

import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from simulation.virtual.points import Points
from simulation.virtual.scheduler import Scheduler
from storage.errors import (
    ContentMismatch,
    ObjectChanged,
    ObjectNotFound,
    ObjectStoreUnavailable,
)
from storage.objects.base import ObjectInfo, StoreProbe, accept_same, copy

LATEST_SECONDS = 90.0  # after which a write arrives that its sender believed lost


class Writer:
    """A `storage.objects.base.ObjectWriter`."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.info = cast(ObjectInfo, None)

    @property
    def size(self) -> int:
        return len(self.buffer)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.buffer).hexdigest()

    def write(self, data: bytes) -> int:
        self.buffer += data
        return len(data)


class Store:
    """An `ObjectStore`. ``changed`` hears the key of each object that was written or deleted."""

    def __init__(
        self, scheduler: Scheduler, points: Points, changed: Callable[[str, bytes | None], None]
    ) -> None:
        self._scheduler = scheduler
        self._points = points
        self._changed = changed
        self.objects: dict[str, tuple[bytes, ObjectInfo]] = {}

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
    ) -> Iterator[Writer]:
        writer = Writer()
        yield writer
        if sha256 not in (None, writer.sha256):
            raise ContentMismatch
        data, what = bytes(writer.buffer), f"put {key}"
        conditional = if_absent and self._points.faults.conditional
        if self._points.before(what):
            if self._points.dice(self._points.faults.late):
                self._arrives_late(key, data, conditional)
            raise ObjectStoreUnavailable
        if conditional and key in self.objects:
            writer.info = accept_same(self, key, writer.sha256)
        else:
            writer.info = self._keep(key, data)
        if self._points.after(what):
            raise ObjectStoreUnavailable

    @contextmanager
    def reader(
        self, key: str, *, start: int = 0, end: int | None = None, if_match: str | None = None
    ) -> Iterator[BinaryIO]:
        self._call(f"get {key}")
        data, info = self._found(key)
        if if_match not in (None, info.etag):
            raise ObjectChanged
        yield io.BytesIO(data[start:end])

    def head(self, key: str) -> ObjectInfo:
        self._call(f"head {key}")
        return self._found(key)[1]

    def delete(self, key: str) -> None:
        what = f"delete {key}"
        if self._points.before(what):
            raise ObjectStoreUnavailable
        self._points.note(what)
        if self.objects.pop(key, None) is not None:
            self._changed(key, None)
        if self._points.after(what):
            raise ObjectStoreUnavailable

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self._call(f"list {prefix}")
        for key in sorted(self.objects):
            if key.startswith(prefix) and key in self.objects:
                yield self.objects[key][1]

    def sweep(self, older_than: float, *, keys: object = None) -> int:
        return 0

    def probe(self) -> StoreProbe:
        return StoreProbe(self._points.faults.conditional, None)

    def _call(self, what: str) -> None:
        if self._points.before(what):
            raise ObjectStoreUnavailable

    def _found(self, key: str) -> tuple[bytes, ObjectInfo]:
        if key not in self.objects:
            raise ObjectNotFound(key)
        return self.objects[key]

    def _keep(self, key: str, data: bytes) -> ObjectInfo:
        digest = hashlib.sha256(data).hexdigest()
        info = ObjectInfo(key, len(data), digest, digest, self._scheduler.now)
        self._scheduler.note(f"put {key} {digest[:8]}")
        self.objects[key] = (data, info)
        self._changed(key, data)
        return info

    def _arrives_late(self, key: str, data: bytes, conditional: bool) -> None:
        def arrive() -> None:
            if not (conditional and key in self.objects):
                self._keep(key, data)

        delay = LATEST_SECONDS * self._scheduler.random.random()
        self._scheduler.at(self._scheduler.now + delay, arrive)
