"""Wake-ups: messages that say "look at the rows". Any of them may be lost.

The rows alone say what is to be done; the reconciler sends a lost message again. Between processes
they go over a broker (`storage.broker`), and within one they are calls.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import structlog

CONTROL_QUEUE = "tidemill.control"
MODEL_QUEUE_PREFIX = "tidemill.model."
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


class Wakeups(Protocol):
    """Sends wake-ups, at best effort. Safe to use from any thread."""

    def send(self, wakeup: Wakeup) -> None:
        """Send one. It never raises: a wake-up only saves a look at the rows."""


class LocalWakeups:
    """Wake-ups within one process: each is a call of every subscriber, in the sender's thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._handlers: Mapping[object, Callable[[Wakeup], None]] = {}  # replaced as a whole

    def subscribe(self, handler: Callable[[Wakeup], None]) -> Callable[[], None]:
        """Call ``handler`` with every wake-up from now on; returns what ends that.

        The sender waits for the handler, which may be called by several threads at once: it should
        do no more than set an event. One that is under way when the subscription ends goes on.
        """
        subscription = object()
        with self._lock:
            self._handlers = {**self._handlers, subscription: handler}

        def unsubscribe() -> None:
            with self._lock:
                left = dict(self._handlers)
                left.pop(subscription, None)
                self._handlers = left

        return unsubscribe

    def send(self, wakeup: Wakeup) -> None:
        """Call every subscriber; an error of one is logged, never raised."""
        for handler in self._handlers.values():
            try:
                handler(wakeup)
            except Exception:
                log.exception("wakeup_not_heard", task=wakeup.task)
