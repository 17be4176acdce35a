"""The caller's place: what it refuses is told as such, apart from what our own store does."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from storage.database.tables import Job, Output
from storage.datasets.outputs.places import OutputPlaces, tidy
from storage.errors import (
    BucketNotFound,
    ConfigurationError,
    ObjectExists,
    ObjectStoreError,
    ObjectStoreUnavailable,
    OutOfSpace,
    OutputError,
    StorageError,
)
from storage.objects import ObjectInfo, ObjectStore, ObjectWriter
from storage.settings import Settings
from worker.errors import OutputUnwritable


@dataclass(frozen=True, slots=True)
class Place:
    """Where one job's shards go; what it refuses is `OutputUnwritable`."""

    store: ObjectStore
    uri: str

    @classmethod
    def of(cls, settings: Settings, job: Job, output: Output) -> "Place":
        """The place, if it may still be written to."""
        try:
            places = OutputPlaces.of(settings.api.output_prefixes)
            store = places.open(settings.storage, job.tenant_id, output.uri)
        except (OutputError, ConfigurationError) as error:
            raise OutputUnwritable(str(error)) from error
        return cls(store, output.uri.rstrip("/"))

    def put(self, name: str, data: bytes) -> None:
        """Write a whole object, in place of one that is there."""
        with self._told(name):
            self.store.put(name, data)

    @contextmanager
    def writer(self, name: str) -> Iterator[ObjectWriter]:
        """Write an object that nobody else has written; the same bytes again are accepted."""
        with ExitStack() as stack:
            with self._told(name):
                inner = stack.enter_context(self.store.writer(name, if_absent=True))
            writer = _Writer(inner, self, name)
            yield writer
            with self._told(name):
                stack.close()

    def tidy(self) -> None:
        """Remove what unfinished writes have left."""
        tidy(self.store)

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        try:
            yield
        except (ObjectStoreError, ConfigurationError) as error:
            raise OutputUnwritable(self._reason(error, name)) from error

    def _reason(self, error: StorageError, name: str) -> str:
        match error:
            case OutOfSpace():
                return f"There is no space left at '{self.uri}'; free some."
            case ObjectExists():
                return f"'{self.uri}/{name}' is not of this batch; move it away."
            case ObjectStoreUnavailable():
                return f"'{self.uri}' cannot be reached."
            case BucketNotFound():
                return f"There is no bucket for '{self.uri}' any more."
        return f"The service may not write to '{self.uri}'; give it the right to."


@dataclass(frozen=True, slots=True)
class _Writer:
    """An `ObjectWriter` at the place."""

    inner: ObjectWriter
    place: Place
    name: str

    @property
    def size(self) -> int:
        return self.inner.size

    @property
    def sha256(self) -> str:
        return self.inner.sha256

    @property
    def info(self) -> ObjectInfo:
        return self.inner.info

    def write(self, data: bytes) -> int:
        with self.place._told(self.name):
            return self.inner.write(data)
