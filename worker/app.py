"""The Celery application: ``celery -A worker.app worker -Q tidemill.control,tidemill.model.NAME``.

A task is a doorbell: it looks at the rows and does what is due. One that comes twice, late or for
nothing returns at once.
"""

import threading
from collections.abc import Callable
from typing import Any

import structlog
from celery import Celery, signals

from storage import models
from storage.errors import StorageError
from storage.settings import Settings
from storage.wakeups import celery_app, model_queue
from worker.context import WorkerContext
from worker.drain import drain
from worker.finalizer import finalize_job
from worker.plan.job import plan_job
from worker.reconciler import Reconciler, tick

log = structlog.get_logger(__name__)

# One thread drains, at most PREPARERS plan or finalize, and there is always one left that answers
# doorbells which are not needed.
CONCURRENCY = 4
PREPARERS = CONCURRENCY - 2


def add_tasks(app: Celery, worker: WorkerContext) -> None:
    """Register the three tasks that wake-ups name."""
    places = threading.BoundedSemaphore(PREPARERS)

    def prepare(work: Callable[[WorkerContext, str], None], job_id: str) -> None:
        # Where every place is taken the doorbell is passed over: the reconciler rings again.
        if places.acquire(blocking=False):
            try:
                work(worker, job_id)
            finally:
                places.release()

    def plan(job_id: str) -> None:
        prepare(plan_job, job_id)

    def drain_model(model: str) -> None:
        if drain(worker, model):
            # The last chunk of a job may be done: no need to wait for the reconciler's turn.
            tick(worker)

    def finalize(job_id: str) -> None:
        prepare(finalize_job, job_id)

    for name, task in (
        ("tidemill.plan", plan),
        ("tidemill.drain", drain_model),
        ("tidemill.finalize", finalize),
    ):
        # Not shared: a later worker in this process has tasks of its own.
        app.task(task, name=name, shared=False)


def listen_to_models(worker: WorkerContext, consumer: Any) -> None:
    """Let a Celery consumer hear of every model that there is by now. Safe from any thread."""
    if consumer is None or consumer.task_consumer is None:
        return  # not connected yet, or not at the moment
    for model in models.list_models(worker.database):
        queue = model_queue(model.name)
        if queue not in consumer.app.amqp.queues.consume_from:
            consumer.call_soon(consumer.add_task_queue, queue)


class ModelListener:
    """Lets a worker hear of models that are added while it runs, each time that it is called."""

    def __init__(self, worker: WorkerContext) -> None:
        self._worker = worker
        self.consumer: Any = None  # Celery's, once there is one
        self.enabled = True

    def __call__(self) -> None:
        if not self.enabled:
            return
        try:
            listen_to_models(self._worker, self.consumer)
        except StorageError as error:
            log.warning("models_not_listed", code=error.code)


def make_app(settings: Settings) -> Celery:
    """The application of a worker process of its own, reconciler included.

    A worker that is given no queues (``-Q``) listens to all models, those that are added later
    included; one that is given some is left with those.
    """
    app = celery_app(settings)
    app.conf.worker_concurrency = CONCURRENCY
    worker = WorkerContext.open(settings, app)
    listener = ModelListener(worker)
    reconciler = Reconciler(worker, before=listener)
    add_tasks(app, worker)

    def configured(options: dict[str, Any], **_: Any) -> None:
        listener.enabled = not options.get("queues")

    def started(sender: Any, **_: Any) -> None:
        listener.consumer = sender
        listener()
        reconciler.start()
        log.info("worker_ready", owner=worker.owner, queues=list(app.amqp.queues.consume_from))

    def stopping(**_: Any) -> None:
        worker.stopping.set()
        worker.engines.interrupt()

    def stopped(**_: Any) -> None:
        reconciler.join(timeout=5)
        worker.engines.close()
        worker.database.close()

    signals.celeryd_init.connect(configured, weak=False)
    signals.worker_ready.connect(started, weak=False)
    signals.worker_shutting_down.connect(stopping, weak=False)
    signals.worker_shutdown.connect(stopped, weak=False)
    return app


def __getattr__(name: str) -> Celery:
    # Celery asks for ``app``; made then, so that importing this module reads no settings.
    if name == "app":
        return make_app(Settings())
    raise AttributeError(name)
