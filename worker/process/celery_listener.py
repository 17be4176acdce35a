"""The Celery side of a worker: a consumer of wake-ups.

A task does no work itself: it wakes the threads of `worker.process.threads`, which look for work in
the database. So a task that comes twice, late or for nothing costs one look.
"""

import threading
from collections.abc import Callable, Collection
from typing import Any

import structlog
from celery import Celery
from celery.exceptions import WorkerShutdown
from celery.worker import WorkController

from storage.errors import StorageError
from storage.registry import models as model_rows
from storage.wakeups import CONTROL_QUEUE, model_queue
from worker.context import WorkerContext
from worker.process.reconciler import tick

log = structlog.get_logger(__name__)

RESTART_SECONDS = 5.0


def add_tasks(app: Celery, worker: WorkerContext, wake: Callable[[], None]) -> None:
    """Register the tasks that wake-ups name; ``wake`` wakes the worker's threads."""

    def wake_up(*args: str) -> None:
        wake()

    def reconcile() -> None:
        try:
            tick(worker)
        except StorageError as error:
            log.warning("reconcile_failed", code=error.code, reason=str(error))
        wake()

    for name, task in (
        ("tidemill.plan", wake_up),
        ("tidemill.drain", wake_up),
        ("tidemill.finalize", wake_up),
        ("tidemill.reconcile", reconcile),
    ):
        # Not shared: another worker in this process has tasks of its own.
        app.task(task, name=name, shared=False)


def queues_of(models: Collection[str]) -> list[str]:
    """The queues of a worker that serves these models."""
    return [CONTROL_QUEUE, *map(model_queue, models)]


class ModelListener:
    """Called from time to time: subscribes a worker to the queues of models added while it runs."""

    def __init__(self, worker: WorkerContext, consumer: Callable[[], Any]) -> None:
        """``consumer`` returns Celery's consumer, or ``None`` while there is none."""
        self._worker = worker
        self._consumer = consumer

    def __call__(self) -> None:
        consumer = self._consumer()
        if consumer is None or consumer.task_consumer is None:
            return  # not connected yet, or not at the moment
        try:
            names = [model.name for model in model_rows.list_models(self._worker.database)]
        except StorageError as error:
            log.warning("models_not_listed", code=error.code)
            return
        for queue in queues_of(names):
            if queue not in consumer.app.amqp.queues.consume_from:
                consumer.call_soon(consumer.add_task_queue, queue)


class Listener:
    """A Celery consumer in a thread of this process."""

    def __init__(
        self, app: Celery, worker: WorkerContext, models: Collection[str] | None = None
    ) -> None:
        """``models`` are those whose wake-ups it hears; ``None`` is all, later ones included."""
        self._app = app
        self._worker = worker
        self._models = models
        self._stopping = threading.Event()
        self._celery: WorkController | None = None
        self._shut = False
        self._thread = threading.Thread(target=self._run, name="listener", daemon=True)
        self._refresh = ModelListener(worker, self._consumer)

    def start(self) -> None:
        """Begin to listen; while the broker is away, it keeps trying to connect."""
        # Celery's threads look tasks up in the default app, not in their worker's.
        self._app.set_default()
        self._thread.start()

    def refresh(self) -> None:
        """Hear of models added since, unless the models were named."""
        if self._models is None:
            self._refresh()

    def stop(self, timeout: float) -> None:
        """Stop listening; wait for the end, at most ``timeout`` seconds."""
        self._stopping.set()
        if not self._thread.is_alive():
            return
        consumer = self._consumer()
        if consumer is not None:
            consumer.call_soon(self._shut_down)
        self._thread.join(timeout)
        if self._thread.is_alive():
            # It waits for a broker that is away. It holds no lease, and ends with the process.
            log.info("listener_left_behind")

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._celery = self._controller()
            self._celery.start()
            if not self._stopping.wait(RESTART_SECONDS):
                log.warning("listener_restarts")

    def _controller(self) -> WorkController:
        return WorkController(
            app=self._app,
            hostname=f"tidemill@{self._worker.owner}",
            pool="solo",  # a task only wakes threads
            # If no models are named, their queues are added once it is connected.
            queues=queues_of(self._models or ()),
            without_heartbeat=True,
            without_mingle=True,
            without_gossip=True,
            ready_callback=self._ready,
        )

    def _ready(self, consumer: Any) -> None:
        """Called once it listens: `stop` may have come before there was a consumer to end."""
        if self._stopping.is_set():
            consumer.call_soon(self._shut_down)

    def _consumer(self) -> Any:
        return self._celery.consumer if self._celery is not None else None

    def _shut_down(self) -> None:
        """End the consumer. Both `stop` and `_ready` ask for it, and a second end would fail."""
        if not self._shut:
            self._shut = True
            raise WorkerShutdown(0)
