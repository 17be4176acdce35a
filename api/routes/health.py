"""Whether the service is alive, and whether it is ready. No API key is needed.

A database or store that hangs holds a thread for minutes. So there is one question at a time,
whoever waits for its answer, in a thread that no request needs.
"""

import asyncio
from collections.abc import Callable
from typing import Literal

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from storage.errors import ObjectNotFound, StorageError
from storage.stores import Stores

router = APIRouter(tags=["Health"])

PROBE_SECONDS = 5.0
# No object has this key: any response, also "no such object", shows that the store is there.
PROBE_KEY = "probe/ready"

Reached = Literal["ok", "unreachable"]


class Health(BaseModel):
    """The process responds."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Whether requests can be served, and what is missing."""

    status: Literal["ok", "unavailable"]
    database: Reached
    object_store: Reached


class Probe:
    """Asks something, once at a time. For the coroutines of one event loop."""

    def __init__(self, ask: Callable[[], bool]) -> None:
        self._ask = ask
        self._asked: asyncio.Task[bool] | None = None

    async def responds(self) -> bool:
        """What the question that is open, or else a new one, gives; false after five seconds."""
        asked = self._asked
        if asked is None or asked.done() or asked.get_loop() is not asyncio.get_running_loop():
            asked = self._asked = asyncio.create_task(self._run())
        await asyncio.wait({asked}, timeout=PROBE_SECONDS)
        return asked.done() and asked.result()

    async def _run(self) -> bool:
        return await to_thread.run_sync(
            self._ask, limiter=CapacityLimiter(1), abandon_on_cancel=True
        )


class Probes:
    """Those of the database and of the object store."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self.database = Probe(self._database_responds)
        self.store = Probe(self._store_responds)

    def _database_responds(self) -> bool:
        try:
            with self._stores.database.read() as session:
                self._stores.database.now(session)
        except StorageError:
            return False
        return True

    def _store_responds(self) -> bool:
        try:
            self._stores.objects.head(PROBE_KEY)
        except ObjectNotFound:
            return True
        except StorageError:
            return False
        return True


@router.get("/healthz")
async def healthz() -> Health:
    """Alive: the process responds."""
    return Health()


@router.get("/readyz", responses={503: {"model": Readiness, "description": "Not ready."}})
async def readyz(request: Request, response: Response) -> Readiness:
    """Ready: the database and the object store respond too; 503 says which one does not."""
    probes: Probes = request.app.state.probes
    found = await asyncio.gather(probes.database.responds(), probes.store.responds())
    ready = all(found)
    response.status_code = 200 if ready else 503
    return Readiness(
        status="ok" if ready else "unavailable",
        database=_reached(found[0]),
        object_store=_reached(found[1]),
    )


def _reached(responds: bool) -> Reached:
    return "ok" if responds else "unreachable"
