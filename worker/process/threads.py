"""A worker's threads: one feeds the engine, the others plan and finalize.

Each looks at the rows when a wake-up rings, and every few seconds without one. So a broker that is
away, or that lost a message, costs seconds and nothing else.
"""

import threading
import time
from collections.abc import Callable, Collection

import structlog

from storage.errors import StorageError
from storage.jobs.reconcile import due
from worker.context import WorkerContext
from worker.errors import WorkerError
from worker.finish.finalizer import finalize_job
from worker.plan.job import plan_job
from worker.process.reconciler import tick
from worker.process.wakeup import WakeupEvent
from worker.run.drain import drain

log = structlog.get_logger(__name__)

PREPARERS = 2


class WorkerThreads:
    """The threads of one worker; they end once its ``leaving`` or ``stopping`` is set.

    Args:
        models: what the engine is for; ``None`` is all that there are.
        preparers: how many jobs are planned or finalized at once.
        before: called ahead of every look for jobs to plan or finalize.
    """

    def __init__(
        self,
        worker: WorkerContext,
        *,
        models: Collection[str] | None = None,
        preparers: int = PREPARERS,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        self._worker = worker
        self._models = models
        self._before = before
        self._wakeup = WakeupEvent()
        self._lock = threading.Lock()
        self._in_hand: set[str] = set()
        self._threads = [
            threading.Thread(target=self._prepare, args=(i,), name=f"preparer-{i}", daemon=True)
            for i in range(preparers)
        ]
        if models is None or models:
            self._threads.append(threading.Thread(target=self._feed, name="feeder", daemon=True))

    def start(self) -> None:
        """Begin to look for work."""
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Look now."""
        self._wakeup.notify()

    def join(self, timeout: float) -> bool:
        """Wait for the end of all threads, at most ``timeout`` seconds; whether it came."""
        self._wakeup.notify()
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _feed(self) -> None:
        self._look_again(self._run_chunks)

    def _prepare(self, number: int) -> None:
        # Half of them begin with the jobs that wait for their results, so that a long row of jobs
        # to plan keeps none back.
        self._look_again(lambda: self._run_jobs(results_first=number % 2 == 1))

    def _look_again(self, look: Callable[[], None]) -> None:
        seen = 0
        while not self._worker.ending:
            self._safely(look)
            seen = self._wakeup.wait(seen, self._worker.reconcile_seconds)

    def _safely(self, work: Callable[[], None]) -> None:
        try:
            work()
        except (StorageError, WorkerError) as error:
            log.warning("work_failed", code=error.code, reason=str(error))
        except Exception:
            # Whatever else it is: without this thread the worker would be idle for ever.
            log.exception("work_failed")

    def _run_chunks(self) -> None:
        if drain(self._worker, self._models) and not self._worker.stopping.is_set():
            # The last chunk of a job may be done: no need to wait for the reconciler's turn.
            tick(self._worker)
            self._wakeup.notify()

    def _run_jobs(self, *, results_first: bool) -> None:
        self._before()
        works = {"tidemill.plan": plan_job, "tidemill.finalize": finalize_job}
        first = "tidemill.finalize" if results_first else "tidemill.plan"
        found = due(self._worker.database, max_crashes=self._worker.settings.worker.max_crashes)
        jobs = [wakeup for wakeup in found if wakeup.task in works]
        for wakeup in sorted(jobs, key=lambda each: each.task != first):
            if self._worker.ending:
                return
            self._run_job(works[wakeup.task], wakeup.args[0])

    def _run_job(self, work: Callable[[WorkerContext, str], None], job_id: str) -> None:
        with self._lock:
            if job_id in self._in_hand:
                return
            self._in_hand.add(job_id)
        try:
            self._safely(lambda: work(self._worker, job_id))
        finally:
            with self._lock:
                self._in_hand.remove(job_id)
