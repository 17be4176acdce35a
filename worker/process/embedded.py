"""A worker in the API's process, for the embedded mode."""

from collections.abc import Callable

import structlog

from engine.config import EngineConfig
from storage.errors import StorageError
from storage.jobs.reconcile import reclaim_embedded
from storage.settings import Settings
from storage.stores import Stores
from storage.wakeups import LocalWakeups, Wakeup
from worker.finish.garbage import KEEP_SECONDS
from worker.models.engines import Engine
from worker.process.host import WorkerHost

log = structlog.get_logger(__name__)


class EmbeddedWorker(WorkerHost):
    """Runs the jobs of every model in this process, which must hold the home folder's lock.

    When it starts, it takes back the leases that an earlier process left, and deletes what that one
    had only begun to write.

    Args:
        wakeups: those of this process, which it hears until it stops; the API sends by them, too.
        make_engine: as in `WorkerHost`.
    """

    def __init__(
        self,
        settings: Settings,
        stores: Stores,
        wakeups: LocalWakeups,
        *,
        make_engine: Callable[[EngineConfig], Engine] | None = None,
    ) -> None:
        super().__init__(settings, stores, wakeups, make_engine=make_engine)
        self._wakeups = wakeups
        self._unsubscribe: Callable[[], None] = lambda: None

    def start(self) -> None:
        """As `WorkerHost.start`."""
        worker = self._worker
        # The home's lock excludes other workers only if the database is in the home.
        if worker.settings.storage.database_in_home:
            reclaim_embedded(worker.database)
        try:
            worker.store.sweep(KEEP_SECONDS)
        except StorageError as error:  # tried again when garbage is collected
            log.warning("uploads_not_swept", code=error.code, reason=str(error))
        super().start()

    def _listen(self) -> None:
        self._unsubscribe = self._wakeups.subscribe(self._hear)

    def _stop_listening(self, timeout: float) -> None:
        self._unsubscribe()

    def _hear(self, wakeup: Wakeup) -> None:
        """Called in the sender's thread: the work is done by threads of the worker's own."""
        if wakeup.task == "tidemill.reconcile" and self._reconciler is not None:
            self._reconciler.ask()
        else:
            self._threads.wake()
