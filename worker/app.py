"""The Celery application: ``celery -A worker.app worker -Q tidemill.control,tidemill.model.NAME``.

A task is a doorbell: it looks at the rows and does what is due. One that comes twice, late or for
nothing returns at once.
"""

from typing import Any

import structlog
from celery import Celery, signals

from storage import models
from storage.errors import StorageError
from storage.settings import Settings
from storage.wakeups import CONTROL_QUEUE, celery_app, model_queue
from worker.context import WorkerContext
from worker.drain import drain
from worker.finalizer import finalize_job
from worker.plan.job import plan_job
from worker.reconciler import Reconciler, tick

log = structlog.get_logger(__name__)

# One thread drains; the others plan, finalize, and answer doorbells that are not needed.
CONCURRENCY = 4


def add_tasks(app: Celery, worker: WorkerContext) -> None:
    """Register the three tasks that wake-ups name."""

    def plan(job_id: str) -> None:
        plan_job(worker, job_id)

    def drain_model(model: str) -> None:
        if drain(worker, model):
            # The last chunk of a job may be done: no need to wait for the reconciler's turn.
            tick(worker)

    def finalize(job_id: str) -> None:
        finalize_job(worker, job_id)

    for name, task in (
        ("tidemill.plan", plan),
        ("tidemill.drain", drain_model),
        ("tidemill.finalize", finalize),
    ):
        app.task(task, name=name)


def listen_to_models(worker: WorkerContext, consumer: Any) -> None:
    """Let a Celery consumer hear of every model that there is by now. Safe from any thread."""
    for model in models.list_models(worker.database):
        queue = model_queue(model.name)
        if queue not in consumer.app.amqp.queues.consume_from:
            consumer.call_soon(consumer.add_task_queue, queue)


def make_app(settings: Settings) -> Celery:
    """The application of a worker process of its own, reconciler included.

    A worker that is given no queues (``-Q``) listens to all models; one that is given some is left
    with those.
    """
    app = celery_app(settings)
    app.conf.worker_concurrency = CONCURRENCY
    worker = WorkerContext.open(settings, app)
    reconciler = Reconciler(worker)
    add_tasks(app, worker)

    def started(sender: Any, **_: Any) -> None:
        if set(app.amqp.queues.consume_from) == {CONTROL_QUEUE}:
            try:
                listen_to_models(worker, sender)
            except StorageError as error:
                log.warning("models_not_listed", code=error.code)
        reconciler.start()
        log.info("worker_ready", owner=worker.owner, queues=list(app.amqp.queues.consume_from))

    def stopping(**_: Any) -> None:
        worker.stopping.set()
        worker.engines.interrupt()

    def stopped(**_: Any) -> None:
        reconciler.join(timeout=5)
        worker.engines.close()
        worker.database.close()

    signals.worker_ready.connect(started, weak=False)
    signals.worker_shutting_down.connect(stopping, weak=False)
    signals.worker_shutdown.connect(stopped, weak=False)
    return app


def __getattr__(name: str) -> Celery:
    # Celery asks for ``app``; made then, so that importing this module reads no settings.
    if name == "app":
        return make_app(Settings())
    raise AttributeError(name)
