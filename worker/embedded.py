"""A Celery worker and a reconciler in threads of this process, for the embedded mode."""

import threading

import structlog
from celery import Celery
from celery.exceptions import WorkerShutdown
from celery.worker import WorkController

from engine.errors import EngineError
from storage import models
from storage.reconcile import reclaim_embedded
from storage.settings import Settings
from storage.wakeups import CONTROL_QUEUE, Wakeup, celery_app, model_queue
from worker.app import CONCURRENCY, add_tasks, listen_to_models
from worker.context import WorkerContext
from worker.reconciler import Reconciler

log = structlog.get_logger(__name__)


class EmbeddedWorker:
    """Runs jobs in this process, which must hold the home folder's lock.

    The schema is up to date before it is made (`Database.migrate`). It opens its own database,
    object store and broker connections; the wake-ups of an API in the same process reach it
    through the ``memory://`` broker.
    """

    def __init__(self, settings: Settings) -> None:
        self._app = _embedded_app(settings)
        self._worker = WorkerContext.open(settings, self._app)
        add_tasks(self._app, self._worker)
        self._reconciler = Reconciler(self._worker, before=self._hear_new_models)
        self._celery: WorkController | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Take back what an earlier process left, and begin.

        Raises:
            StorageError: the database cannot be used.
        """
        worker = self._worker
        models.ensure_default(worker.database, worker.settings.default_model)
        # The home's lock says that nobody else is at work, but only of a database that is in it.
        if worker.settings.database_in_home:
            reclaim_embedded(worker.database)
        known = [model.name for model in models.list_models(worker.database)]
        # Celery's threads look a task up in the default app, not in that of their worker.
        self._app.set_default()
        self._celery = WorkController(
            app=self._app,
            hostname=f"embedded@{worker.owner}",
            pool="threads",
            concurrency=CONCURRENCY,
            queues=[CONTROL_QUEUE, *map(model_queue, known)],
            without_heartbeat=True,
            without_mingle=True,
            without_gossip=True,
        )
        self._thread = threading.Thread(
            target=self._celery.start, name="embedded-worker", daemon=True
        )
        self._thread.start()
        self._reconciler.start()
        log.info("embedded_worker_started", owner=worker.owner, models=known)

    def stop(self, timeout: float = 10.0) -> None:
        """Give back what is being worked on, and end; within seconds, or after ``timeout``."""
        worker = self._worker
        worker.stopping.set()
        worker.engines.interrupt()
        if self._celery is not None and self._thread is not None:
            consumer = self._celery.consumer
            if consumer is not None:
                consumer.call_soon(_shut_down)
                # The consumer waits for messages for up to two seconds: this one ends the wait.
                worker.wakeups.send(Wakeup.plan(""))
            self._thread.join(timeout)
            if self._thread.is_alive():
                log.warning("embedded_worker_left_behind")
        self._reconciler.join(timeout)
        worker.engines.close()
        worker.database.close()
        log.info("embedded_worker_stopped")

    @property
    def failures(self) -> dict[str, EngineError]:
        """Models whose engine does not start, and why: their jobs wait until it does."""
        return self._worker.engines.failures

    def _hear_new_models(self) -> None:
        if self._celery is not None:
            listen_to_models(self._worker, self._celery.consumer)


def _embedded_app(settings: Settings) -> Celery:
    app = celery_app(settings)
    # Nobody controls this worker from outside its process.
    app.conf.worker_enable_remote_control = False
    return app


def _shut_down() -> None:
    raise WorkerShutdown(0)
