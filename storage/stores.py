"""The database and the object store of a process: opened once, shared by all it runs."""

from dataclasses import dataclass
from types import TracebackType
from typing import Self

from storage.database.connection import Database
from storage.objects import ObjectStore, open_store
from storage.settings import StorageSettings


@dataclass(frozen=True, slots=True)
class Stores:
    """Both are safe to use from any thread. Whoever opened them closes them, after all others.

    Attributes:
        settings: what they were opened with; inputs in place are read by the same.
    """

    database: Database
    objects: ObjectStore
    settings: StorageSettings

    @classmethod
    def open(cls, settings: StorageSettings) -> Self:
        """What the settings name; nothing is connected to yet.

        Raises:
            ConfigurationError: one of the URLs is not usable.
        """
        return cls(Database(settings.resolved_database_url), open_store(settings), settings)

    def close(self) -> None:
        """Close the database's idle connections. Harmless when done twice."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
