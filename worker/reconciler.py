"""Sees to it that what is due happens, whoever died meanwhile. Any number of them may run."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from storage import files, garbage, keys
from storage.errors import StorageError
from storage.reconcile import reconcile
from worker.context import WorkerContext
from worker.errors import WorkerError
from worker.poison import bury_poison

log = structlog.get_logger(__name__)

COLLECT_SECONDS = 600.0
KEEP_SECONDS = 24 * 3600.0


def tick(worker: WorkerContext) -> None:
    """Settle what is due, once, and ring the doorbells.

    Raises:
        StorageError: the database or the store failed.
    """
    for wakeup in reconcile(worker.database, max_crashes=worker.settings.max_crashes):
        worker.wakeups.send(wakeup)
    bury_poison(worker)


def collect_garbage(worker: WorkerContext) -> None:
    """Delete the parts and plans of jobs that ended a day ago, and files past their time.

    What cannot be deleted is logged, tried again at the next time, and keeps nothing else back.

    Raises:
        StorageError: the database or the whole store is away.
    """
    after = ""
    while job_ids := garbage.collectable_jobs(
        worker.database, older_than=KEEP_SECONDS, after=after
    ):
        after = job_ids[-1]
        for job_id in job_ids:
            with _skipping("job_not_collected", job_id):
                _collect_job(worker, job_id)
    after = ""
    while overdue := files.overdue(worker.database, after=after):
        after = overdue[-1].id
        for file in overdue:
            with _skipping("file_not_expired", file.id):
                worker.store.delete(file.object_key)
                files.mark_expired(worker.database, file.id)
                log.info("file_expired", file=file.id)
    worker.store.sweep(KEEP_SECONDS)


def _collect_job(worker: WorkerContext, job_id: str) -> None:
    for prefix in (keys.plans(job_id), keys.parts(job_id)):
        for found in worker.store.list(prefix):
            worker.store.delete(found.key)
    garbage.mark_collected(worker.database, job_id)
    log.info("job_collected", job=job_id)


@contextmanager
def _skipping(event: str, item: str) -> Iterator[None]:
    """Go on after a fault that is this item's alone."""
    try:
        yield
    except StorageError as error:
        if error.retryable:
            raise
        log.warning(event, id=item, reason=str(error))


class Reconciler:
    """A thread that ticks; an error is logged and the next tick comes all the same."""

    def __init__(self, worker: WorkerContext, *, before: Callable[[], None] = lambda: None) -> None:
        """``before`` is called ahead of every tick."""
        self._worker = worker
        self._before = before
        self._thread = threading.Thread(target=self._run, name="reconciler", daemon=True)
        self._collect_at = time.monotonic()

    def start(self) -> None:
        """Begin; it ends once the worker's ``stopping`` is set."""
        self._thread.start()

    def join(self, timeout: float) -> None:
        """Wait for its end, at most ``timeout`` seconds."""
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        while not self._worker.stopping.wait(self._worker.reconcile_seconds):
            try:
                self._before()
                tick(self._worker)
                if time.monotonic() >= self._collect_at:
                    self._collect_at = time.monotonic() + COLLECT_SECONDS
                    collect_garbage(self._worker)
            except (StorageError, WorkerError) as error:
                log.warning("reconcile_failed", code=error.code, reason=str(error))
            except Exception:
                # Whatever else it is: without this thread lost work would never come back.
                log.exception("reconcile_failed")
