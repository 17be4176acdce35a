"""Wake-ups: Celery messages that say "look at the rows". Any of them may be lost.

The rows alone say what is to be done; the reconciler sends a lost message again.
"""

import time
from dataclasses import dataclass
from typing import Any, Literal

import structlog
from celery import Celery
from kombu.exceptions import KombuError, OperationalError

from storage.settings import StorageSettings

CONTROL_QUEUE = "tidemill.control"
MODEL_QUEUE_PREFIX = "tidemill.model."
EXPIRES_SECONDS = 60
SILENT_SECONDS = 5.0
TaskName = Literal["tidemill.plan", "tidemill.drain", "tidemill.finalize", "tidemill.reconcile"]

log = structlog.get_logger(__name__)


def model_queue(model: str) -> str:
    """The queue that the workers which run ``model`` listen to."""
    return MODEL_QUEUE_PREFIX + model


@dataclass(frozen=True, slots=True)
class Wakeup:
    """A task to start, by its name, so that the sender need not import the worker."""

    task: TaskName
    queue: str
    args: tuple[str, ...]

    @classmethod
    def plan(cls, job_id: str) -> "Wakeup":
        """A job waits to be planned."""
        return cls("tidemill.plan", CONTROL_QUEUE, (job_id,))

    @classmethod
    def drain(cls, model: str) -> "Wakeup":
        """Chunks of this model wait to be run."""
        return cls("tidemill.drain", model_queue(model), (model,))

    @classmethod
    def finalize(cls, job_id: str) -> "Wakeup":
        """A job's chunks have all ended; its results wait to be merged."""
        return cls("tidemill.finalize", CONTROL_QUEUE, (job_id,))

    @classmethod
    def reconcile(cls) -> "Wakeup":
        """A client changed a row; the reconciler need not wait for its next look."""
        return cls("tidemill.reconcile", CONTROL_QUEUE, ())


class Wakeups:
    """Sends wake-ups, at best effort."""

    def __init__(self, app: Celery) -> None:
        self.app = app
        self._silent_until = 0.0

    def send(self, wakeup: Wakeup) -> None:
        """Send one; a broker that is down is logged, never raised.

        After a failure nothing is sent for some seconds: each try would keep the caller waiting,
        and a wake-up only saves a look at the rows.
        """
        if time.monotonic() < self._silent_until:
            return
        try:
            self.app.send_task(
                wakeup.task,
                args=wakeup.args,
                queue=wakeup.queue,
                expires=EXPIRES_SECONDS,
                ignore_result=True,
                retry=False,
            )
        except self._broker_errors() as error:
            self._silent_until = time.monotonic() + SILENT_SECONDS
            log.warning("wakeup_not_sent", task=wakeup.task, error=type(error).__name__)

    def _broker_errors(self) -> tuple[type[Exception], ...]:
        transport = self.app.connection_for_write().transport
        kinds = (*transport.connection_errors, *transport.channel_errors)
        return (KombuError, OperationalError, OSError, *kinds)


def celery_app(settings: StorageSettings) -> Celery:
    """The Celery application that the API sends with and the worker runs."""
    app = Celery("tidemill", broker=settings.broker_url, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=False,
        task_default_queue=CONTROL_QUEUE,
        task_send_sent_event=False,
        worker_pool="threads",
        worker_concurrency=1,
        # No limit: an acknowledgement that is lost with its connection would count against it for
        # ever, and the consumer would read nothing more. A task is done as soon as it is read.
        worker_prefetch_multiplier=0,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        # No task is acknowledged late, so this cancels nothing; unset, Celery warns.
        worker_cancel_long_running_tasks_on_connection_loss=True,
        broker_connection_max_retries=None,
        broker_connection_retry_on_startup=True,
        broker_transport_options=_transport_options(settings),
        enable_utc=True,
    )
    return app


def _transport_options(settings: StorageSettings) -> dict[str, Any]:
    if settings.embedded:
        return {"polling_interval": 0.05}
    # Without max_retries a sender would wait for ever for a broker that is down.
    return {
        "socket_timeout": 10,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "max_retries": 1,
        "interval_start": 0,
    }
