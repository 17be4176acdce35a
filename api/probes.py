"""Whether what the service needs responds, asked by anybody as often as they like.

A server that hangs holds a thread for minutes. So there is one question at a time, whoever waits
for its answer, in a thread that no request needs.
"""

import asyncio
from collections.abc import Callable

from anyio import CapacityLimiter, to_thread

from storage.errors import ObjectNotFound, StorageError
from storage.stores import Stores

PROBE_SECONDS = 5.0
# No object has this key: any response, also "no such object", shows that the store is there.
PROBE_KEY = "probe/ready"


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
