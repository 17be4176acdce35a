"""The Celery application: ``celery -A worker.app worker -Q tidemill.control,tidemill.model.NAME``.

``tidemill worker`` is the same worker under a command of its own; this is for those who run Celery
themselves.
"""

from typing import Any

import structlog
from celery import Celery, signals

from storage.broker import CeleryWakeups, celery_app
from storage.settings import Settings
from storage.settings.unknown import warn_of_unknown_variables
from storage.stores import Stores
from storage.wakeups import CONTROL_QUEUE, MODEL_QUEUE_PREFIX
from worker.context import WorkerContext
from worker.process.celery_listener import ModelListener, add_tasks
from worker.process.reconciler import Reconciler
from worker.process.threads import JOB_THREADS, WorkerThreads

log = structlog.get_logger(__name__)


def make_app(settings: Settings) -> Celery:
    """The application of a worker process of its own, with a reconciler.

    A worker without queues (``-Q``) plans, finalizes and serves all models, later ones included. A
    worker with queues does only what these stand for.
    """
    app = celery_app(settings.storage)
    stores = Stores.open(settings.storage)
    host = _CeleryHost(WorkerContext.open(settings, stores, CeleryWakeups(app)), stores)
    add_tasks(app, host.worker, host.wake)
    signals.celeryd_init.connect(host.configure, weak=False)
    signals.worker_ready.connect(host.start, weak=False)
    signals.worker_shutting_down.connect(host.leave, weak=False)
    signals.worker_shutdown.connect(host.end, weak=False)
    return app


class _CeleryHost:
    """The threads of a worker in Celery's own process; Celery's signals call the methods."""

    def __init__(self, worker: WorkerContext, stores: Stores) -> None:
        self.worker = worker
        self._stores = stores
        self._consumer: Any = None
        self._listen = ModelListener(worker, lambda: self._consumer)
        self._reconciler = Reconciler(worker)
        self._threads = WorkerThreads(worker, before=self._listen)

    def wake(self) -> None:
        self._threads.wake()

    def configure(self, options: dict[str, Any], **_: Any) -> None:
        named = options.get("queues") or []
        queues = named.split(",") if isinstance(named, str) else list(named)
        if queues:
            self._threads = WorkerThreads(
                self.worker,
                models=[
                    queue.removeprefix(MODEL_QUEUE_PREFIX)
                    for queue in queues
                    if queue.startswith(MODEL_QUEUE_PREFIX)
                ],
                job_threads=JOB_THREADS if CONTROL_QUEUE in queues else 0,
            )

    def start(self, sender: Any, **_: Any) -> None:
        self._consumer = sender
        self._threads.start()
        self._reconciler.start()
        queues = list(sender.app.amqp.queues.consume_from)
        log.info("worker_ready", owner=self.worker.owner, queues=queues)

    def leave(self, **_: Any) -> None:
        self.worker.leaving.set()
        self._threads.wake()

    def end(self, **_: Any) -> None:
        self._threads.join(self.worker.settings.worker.drain_seconds)
        self.worker.stopping.set()
        self._threads.interrupt_engines()
        self._threads.join(timeout=6)
        self._reconciler.join(timeout=1)
        self._threads.close_engines()
        self._stores.close()


def __getattr__(name: str) -> Celery:
    # Made when Celery asks for ``app``, so that importing this module reads no settings.
    if name == "app":
        warn_of_unknown_variables()
        return make_app(Settings.load())
    raise AttributeError(name)
