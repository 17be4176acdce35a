"""A whole worker in this process: its threads, its reconciler, and the consumer of wake-ups."""

import time
from collections.abc import Collection

import structlog
from prometheus_client.registry import Collector

from engine.errors import EngineError
from storage.registry import models as model_rows
from storage.settings import Settings
from storage.stores import Stores
from storage.wakeups import celery_app
from worker.context import WorkerContext
from worker.plan.scratch import sweep
from worker.process.listener import Listener, add_tasks
from worker.process.reconciler import Reconciler
from worker.process.threads import PREPARERS, WorkerThreads

log = structlog.get_logger(__name__)

# What is in hand is given back within so long; with the engine's end it is under ten seconds.
THREADS_SECONDS = 5.0
LISTENER_SECONDS = 2.0
RECONCILER_SECONDS = 1.0


class WorkerHost:
    """Runs jobs in threads of this process. The schema is up to date before it is started.

    Args:
        stores: closed by the caller, after `stop`.
        models: those to serve; ``None`` is all, later ones included.
        preparers: how many jobs are planned or finalized at once, beside the engine's work.
        reconcile: whether to see to what is due on everybody's behalf, too.
    """

    def __init__(
        self,
        settings: Settings,
        stores: Stores,
        *,
        models: Collection[str] | None = None,
        preparers: int = PREPARERS,
        reconcile: bool = True,
    ) -> None:
        app = celery_app(settings.storage)
        # Nobody controls a worker by messages: a revoked task would mean nothing.
        app.conf.worker_enable_remote_control = False
        self._worker = WorkerContext.open(settings, stores, app)
        self._listener = Listener(app, self._worker, models)
        self._threads = WorkerThreads(
            self._worker, models=models, preparers=preparers, before=self._listener.refresh
        )
        add_tasks(app, self._worker, self._threads.wake)
        self._reconciler = Reconciler(self._worker) if reconcile else None

    @property
    def owner(self) -> str:
        """The name under which it holds leases."""
        return self._worker.owner

    @property
    def metrics(self) -> Collector:
        """What it counts, for Prometheus."""
        return self._worker.metrics.registry

    @property
    def failures(self) -> dict[str, EngineError]:
        """Models whose engine does not start, and why: their jobs wait until it does."""
        return self._worker.engines.failures

    def start(self) -> None:
        """Begin.

        Raises:
            StorageError: the database cannot be used.
        """
        worker = self._worker
        model_rows.ensure_default(worker.database, worker.settings.worker.default_model)
        self._prepare(worker)
        sweep()
        self._listener.start()
        self._threads.start()
        if self._reconciler is not None:
            self._reconciler.start()
        log.info("worker_started", owner=worker.owner)

    def _prepare(self, worker: WorkerContext) -> None:
        """What is to be done ahead of the first look."""

    def stop(self, drain_seconds: float = 0.0) -> bool:
        """End: begin nothing more, go on for at most ``drain_seconds``, and give back the rest.

        Returns within about ten seconds more; whether every thread has ended.
        """
        worker = self._worker
        worker.leaving.set()
        give_back_at = time.monotonic() + drain_seconds
        if not drain_seconds:
            worker.stopping.set()
        self._listener.stop(LISTENER_SECONDS)
        if drain_seconds and not self._threads.join(max(0.0, give_back_at - time.monotonic())):
            log.info("drain_over", seconds=drain_seconds)
        worker.stopping.set()
        worker.engines.interrupt()
        ended = self._threads.join(THREADS_SECONDS)
        if self._reconciler is not None:
            self._reconciler.join(RECONCILER_SECONDS)
        worker.engines.close()
        # What is left behind waits for a server that hangs; its leases will run out.
        log.info("worker_stopped" if ended else "worker_left_behind", owner=worker.owner)
        return ended
