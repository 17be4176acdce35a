"""The reconciler makes what is due happen, even if the process that was to do it has died.

Any number of them may run.
"""

import threading
import time
from collections.abc import Callable

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
COMMITTED_SECONDS = 0.5  # how often it sees whether a job's last chunk may have been committed


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
    """Calls `tick` regularly, and when it is asked, in a thread; another one collects garbage.

    Both go on after an error, which is logged.
    """

    def __init__(self, worker: WorkerContext) -> None:
        self._worker = worker
        self._threads = [
            threading.Thread(target=self._reconcile, name="reconciler", daemon=True),
            # Apart, as it may take minutes: leases that ran out and cancelled jobs do not wait.
            threading.Thread(target=self._collect, name="garbage", daemon=True),
        ]
        self._asked = threading.Event()
        self._sent: frozenset[Wakeup] = frozenset()

    def start(self) -> None:
        """Begin; it ends once the worker's ``stopping`` is set."""
        for thread in self._threads:
            thread.start()

    def ask(self) -> None:
        """Have it call `tick` now, and send every wake-up that is due, also those sent before."""
        self._asked.set()

    def join(self, timeout: float) -> None:
        """Wait for its end, at most ``timeout`` seconds."""
        self._asked.set()  # what it waits for
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))

    def _reconcile(self) -> None:
        while self._pause():
            self._safely(self._tick, "reconcile_failed")

    def _pause(self) -> bool:
        """Wait until it is time, it was asked, or this worker may have ended a job.

        False is the end.
        """
        worker = self._worker
        seconds = worker.settings.worker.reconcile_seconds
        until = time.monotonic() + seconds
        while not worker.stopping.is_set():
            if self._asked.wait(min(COMMITTED_SECONDS, seconds)):
                self._asked.clear()
                self._sent = frozenset()
                return not worker.stopping.is_set()
            if worker.committed.is_set() or time.monotonic() >= until:
                worker.committed.clear()
                return True
        return False

    def _tick(self) -> None:
        self._sent = tick(self._worker, self._sent)

    def _collect(self) -> None:
        seconds = self._worker.settings.worker.reconcile_seconds
        while not self._worker.stopping.wait(seconds):
            self._safely(lambda: collect_garbage(self._worker), "garbage_not_collected")
            seconds = COLLECT_SECONDS

    def _safely(self, work: Callable[[], None], event: str) -> None:
        try:
            work()
        except (StorageError, WorkerError) as error:
            log.warning(event, code=error.code, reason=str(error))
        except Exception:
            # Whatever it is, go on: without this thread lost work would never come back.
            log.exception(event)
