"""What every request needs; set once by `create_app`."""

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from storage.database.connection import Database
from storage.objects import ObjectStore
from storage.settings import ApiSettings
from storage.stores import Stores
from storage.wakeups import Wakeups


@dataclass(frozen=True)
class Context:
    """What the routes work with."""

    settings: ApiSettings
    stores: Stores
    wakeups: Wakeups

    @property
    def database(self) -> Database:
        """The rows."""
        return self.stores.database

    @property
    def store(self) -> ObjectStore:
        """The objects."""
        return self.stores.objects


# Coroutines, as FastAPI runs plain dependencies in a thread each.
async def current_context(request: Request) -> Context:
    """The application's context."""
    return cast(Context, request.app.state.context)


ContextDep = Annotated[Context, Depends(current_context)]
