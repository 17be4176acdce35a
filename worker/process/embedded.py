"""A worker in the API's process, for the embedded mode."""

from storage.jobs.reconcile import reclaim_embedded
from worker.context import WorkerContext
from worker.process.host import WorkerHost


class EmbeddedWorker(WorkerHost):
    """Runs jobs in this process, which must hold the home folder's lock.

    The API's wake-ups reach it through the ``memory://`` broker. When it starts, it takes back the
    leases that an earlier process left.
    """

    def _prepare(self, worker: WorkerContext) -> None:
        # The home's lock excludes other workers only if the database is in the home.
        if worker.settings.storage.database_in_home:
            reclaim_embedded(worker.database)
