"""A worker in the API's process, for the embedded mode."""

import structlog

from storage.errors import StorageError
from storage.jobs.reconcile import reclaim_embedded
from worker.context import WorkerContext
from worker.finish.garbage import KEEP_SECONDS
from worker.process.host import WorkerHost

log = structlog.get_logger(__name__)


class EmbeddedWorker(WorkerHost):
    """Runs jobs in this process, which must hold the home folder's lock.

    The API's wake-ups reach it through the ``memory://`` broker. When it starts, it takes back the
    leases that an earlier process left, and deletes what that one had only begun to write.
    """

    def _prepare(self, worker: WorkerContext) -> None:
        # The home's lock excludes other workers only if the database is in the home.
        if worker.settings.storage.database_in_home:
            reclaim_embedded(worker.database)
        try:
            worker.store.sweep(KEEP_SECONDS)
        except StorageError as error:  # tried again when garbage is collected
            log.warning("uploads_not_swept", code=error.code, reason=str(error))
