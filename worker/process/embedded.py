"""A worker in the process of the API, for the embedded mode."""

from storage.jobs.reconcile import reclaim_embedded
from worker.context import WorkerContext
from worker.process.host import WorkerHost


class EmbeddedWorker(WorkerHost):
    """Runs jobs in this process, which must hold the home folder's lock.

    The wake-ups of an API in the same process reach it through the ``memory://`` broker. Its start
    takes back what an earlier process left.
    """

    def _prepare(self, worker: WorkerContext) -> None:
        # The home's lock says that nobody else is at work, but only of a database that is in it.
        if worker.settings.storage.database_in_home:
            reclaim_embedded(worker.database)
