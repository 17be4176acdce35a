"""The reconciler makes what is due happen, even if the process that was to do it has died.

Any number of them may run.
"""

import threading
import time

import structlog

from storage.errors import StorageError
from storage.jobs.reconcile import reconcile
from storage.wakeups import Wakeup
from worker.context import WorkerContext
from worker.errors import WorkerError
from worker.finish.garbage import collect_garbage
from worker.run.poison import bury_poison

log = structlog.get_logger(__name__)

COLLECT_SECONDS = 600.0
COMMITTED_SECONDS = 0.5  # how often it sees whether a chunk was committed


def tick(worker: WorkerContext, sent: frozenset[Wakeup] = frozenset()) -> frozenset[Wakeup]:
    """Bring the database up to date once, send the wake-ups that are due, and return these.

    Pass them as ``sent`` to the next call: they are not sent again, because workers look by
    themselves, and a queue without a listener must not grow with each call.

    Raises:
        StorageError: the database or the store failed.
    """
    due = reconcile(worker.database, max_crashes=worker.settings.worker.max_crashes)
    for wakeup in due:
        if wakeup not in sent:
            worker.wakeups.send(wakeup)
    bury_poison(worker)
    return frozenset(due)


class Reconciler:
    """A thread that calls `tick` regularly; after an error, which is logged, too."""

    def __init__(self, worker: WorkerContext) -> None:
        self._worker = worker
        self._thread = threading.Thread(target=self._run, name="reconciler", daemon=True)
        self._collect_at = time.monotonic()
        self._sent: frozenset[Wakeup] = frozenset()

    def start(self) -> None:
        """Begin; it ends once the worker's ``stopping`` is set."""
        self._thread.start()

    def join(self, timeout: float) -> None:
        """Wait for its end, at most ``timeout`` seconds."""
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _pause(self) -> bool:
        """Wait until it is time, or a chunk of this worker was committed; false is the end."""
        worker = self._worker
        seconds = worker.settings.worker.reconcile_seconds
        until = time.monotonic() + seconds
        while not worker.stopping.wait(min(COMMITTED_SECONDS, seconds)):
            if worker.committed.is_set() or time.monotonic() >= until:
                worker.committed.clear()
                return True
        return False

    def _run(self) -> None:
        while self._pause():
            try:
                self._sent = tick(self._worker, self._sent)
                if time.monotonic() >= self._collect_at:
                    self._collect_at = time.monotonic() + COLLECT_SECONDS
                    collect_garbage(self._worker)
            except (StorageError, WorkerError) as error:
                log.warning("reconcile_failed", code=error.code, reason=str(error))
            except Exception:
                # Whatever it is, go on: without this thread lost work would never come back.
                log.exception("reconcile_failed")
