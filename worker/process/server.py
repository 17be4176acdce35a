"""A worker on a server, one process among several that share a database and a broker."""

from collections.abc import Collection

from storage.broker import CeleryWakeups, celery_app
from storage.settings import Settings
from storage.stores import Stores
from worker.process.celery_listener import Listener, add_tasks
from worker.process.host import WorkerHost
from worker.process.threads import JOB_THREADS


class ServerWorker(WorkerHost):
    """Sends wake-ups over the broker, and hears those of its models' queues.

    The arguments are those of `WorkerHost`.
    """

    def __init__(
        self,
        settings: Settings,
        stores: Stores,
        *,
        models: Collection[str] | None = None,
        job_threads: int = JOB_THREADS,
        reconcile: bool = True,
    ) -> None:
        app = celery_app(settings.storage)
        # Workers take no orders by messages: revoking a task has no meaning here.
        app.conf.worker_enable_remote_control = False
        super().__init__(
            settings,
            stores,
            CeleryWakeups(app),
            models=models,
            job_threads=job_threads,
            reconcile=reconcile,
            before=self._hear_of_models,
        )
        self._listener = Listener(app, self._worker, models)
        add_tasks(app, self._worker, self._threads.wake)

    def _hear_of_models(self) -> None:
        self._listener.refresh()

    def _listen(self) -> None:
        self._listener.start()

    def _stop_listening(self, timeout: float) -> None:
        self._listener.stop(timeout)
