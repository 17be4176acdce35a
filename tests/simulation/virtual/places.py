"""Places of clients, kept in the same memory as the service's own objects."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import worker.shards.places
from simulation.virtual.store import Store, Writer

PLACES = "file:///places/"


@dataclass(frozen=True)
class Place:
    """The part of an `ObjectStore` that writes a client's place."""

    store: Store
    prefix: str

    def put(self, key: str, data: bytes) -> Any:
        return self.store.put(self.prefix + key, data)

    def writer(self, key: str, *, if_absent: bool) -> AbstractContextManager[Writer]:
        return self.store.writer(self.prefix + key, if_absent=if_absent)

    def sweep(self, older_than: float, *, keys: object = None) -> int:
        return 0


@dataclass(frozen=True)
class Places:
    """As `storage.datasets.outputs.places.OutputPlaces`; everybody may write everywhere."""

    store: Store

    def of(self, entries: object) -> "Places":
        return self

    def open(self, settings: object, tenant: str, uri: str) -> Place:
        return Place(self.store, f"places/{uri.removeprefix(PLACES)}")


@contextmanager
def in_memory(store: Store) -> Iterator[None]:
    """The workers write clients' places to this store meanwhile."""
    with patch.object(worker.shards.places, "OutputPlaces", Places(store)):
        yield
