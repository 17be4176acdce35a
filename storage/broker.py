"""Wake-ups between processes: Celery messages over the broker that the settings name.

Celery is imported by the first call that needs it: a process without a broker never loads it.
"""

import time
from typing import TYPE_CHECKING

import structlog

from storage.settings import StorageSettings
from storage.wakeups import CONTROL_QUEUE, LocalWakeups, Wakeup, Wakeups

if TYPE_CHECKING:
    from celery import Celery

EXPIRES_SECONDS = 60
SILENT_SECONDS = 5.0

log = structlog.get_logger(__name__)


def open_wakeups(settings: StorageSettings) -> Wakeups:
    """Wake-ups over the broker, or within this process where no broker is set."""
    return LocalWakeups() if settings.embedded else CeleryWakeups(celery_app(settings))


class CeleryWakeups:
    """Sends wake-ups over a broker, at best effort."""

    def __init__(self, app: "Celery") -> None:
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
        from kombu.exceptions import KombuError, OperationalError

        transport = self.app.connection_for_write().transport
        kinds = (*transport.connection_errors, *transport.channel_errors)
        return (KombuError, OperationalError, OSError, *kinds)


def celery_app(settings: StorageSettings) -> "Celery":
    """The Celery application that the API sends with and the worker runs."""
    from celery import Celery

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
        # Without max_retries a sender would wait for ever for a broker that is down.
        broker_transport_options={
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "max_retries": 1,
            "interval_start": 0,
        },
        enable_utc=True,
    )
    return app
