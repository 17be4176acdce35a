"""A worker's threads: one an engine runs chunks, the others plan and finalize jobs, write shards.

Of those that plan and finalize, some do so for short jobs alone (`worker.process.job_queue`).

Each looks for work in the database after a wake-up, and every few seconds without one. So if the
broker is away or loses a message, work starts some seconds later.
"""

import threading
import time
from collections.abc import Callable, Collection
from functools import partial

import structlog

from engine.errors import EngineError
from storage.errors import StorageError
from storage.jobs.waiting_jobs import WaitingJob
from worker.allowance import Allowance
from worker.context import WorkerContext
from worker.errors import WorkerError
from worker.finish.finalizer import finalize_job
from worker.plan.job import plan_job
from worker.process.job_queue import JobQueue
from worker.process.reconciler import tick
from worker.process.wakeup import WakeupEvent
from worker.run.drain import drain
from worker.shards.write import write_output

log = structlog.get_logger(__name__)

JOB_THREADS = 2
LONG_JOB_THREADS = 2
SHARD_THREADS = 2
# Wake-ups come by the hundred while many small jobs run. Each thread takes those of so many seconds
# together; the first after a while is answered at once.
PAUSE_SECONDS = 0.05
LONG_PAUSE_SECONDS = 0.5
TICK_SECONDS = 0.2


class WorkerThreads:
    """The threads of one worker; they end once its ``leaving`` or ``stopping`` is set.

    Args:
        models: those to run chunks of; ``None`` is all. If empty, no thread runs chunks.
        job_threads: how many short jobs are planned or finalized at once; where there are any,
            two long ones are, too, and two shards are written.
        before: called each time before jobs to plan or finalize are looked for.

    Attributes:
        job_done: notified each time that a job was planned or finalized here, and when none of a
            model can run because its engine did not start.
    """

    def __init__(
        self,
        worker: WorkerContext,
        *,
        models: Collection[str] | None = None,
        job_threads: int = JOB_THREADS,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        self._worker = worker
        self._models = models
        self._before = before
        self._wakeup = WakeupEvent()
        self.job_done = WakeupEvent()
        self._queue = JobQueue(worker)
        self._ticked_at = 0.0
        self._threads = [
            threading.Thread(
                target=self._watch_jobs, args=(short, i), name=f"{name}-{i}", daemon=True
            )
            for name, short, count in (
                ("jobs", True, job_threads),
                ("long-jobs", False, LONG_JOB_THREADS if job_threads else 0),
            )
            for i in range(count)
        ]
        self._threads += [
            threading.Thread(target=self._watch_shards, name=f"shards-{i}", daemon=True)
            for i in range(SHARD_THREADS if job_threads else 0)
        ]
        self._runners = worker.by_device() if models is None or models else ()
        for index, runner in enumerate(self._runners):
            name = f"chunks-{index}" if len(self._runners) > 1 else "chunks"
            self._threads.append(
                threading.Thread(target=self._watch_chunks, args=(runner,), name=name, daemon=True)
            )

    def start(self) -> None:
        """Begin to look for work."""
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Have every thread look for work now."""
        self._wakeup.notify()

    def join(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds for all threads to end; returns whether they did."""
        self._wakeup.notify()
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def interrupt_engines(self) -> None:
        """End engines that are still starting, and start no other."""
        for runner in self._runners:
            runner.engines.interrupt()

    def close_engines(self) -> None:
        """End every engine."""
        for runner in self._runners:
            runner.engines.close()

    @property
    def failures(self) -> dict[str, EngineError]:
        """Models whose engine does not start on a device, and why."""
        return {
            model: error
            for runner in self._runners
            for model, error in runner.engines.failures.items()
        }

    def _watch_chunks(self, runner: WorkerContext) -> None:
        self._repeat(lambda: self._run_chunks(runner), PAUSE_SECONDS)

    def _watch_jobs(self, short: bool, number: int) -> None:
        # Every other thread finalizes before it plans, so that many jobs to plan delay no results.
        work = partial(self._run_jobs, short=short, finalize_first=number % 2 == 1)
        self._repeat(work, PAUSE_SECONDS if short else LONG_PAUSE_SECONDS)

    def _watch_shards(self) -> None:
        self._repeat(self._write_shards, LONG_PAUSE_SECONDS)

    def _repeat(self, work: Callable[[], None], pause: float) -> None:
        seen = 0
        while not self._worker.ending:
            began = time.monotonic()
            self._safely(work)
            seen = self._wakeup.wait(seen, self._worker.settings.worker.reconcile_seconds)
            self._rest(began + pause)

    def _rest(self, until: float) -> None:
        """Wait until then (monotonic seconds), if that is still to come."""
        seconds = until - time.monotonic()
        if seconds > 0 and not self._worker.ending:
            self._worker.leaving.wait(seconds)

    def _safely(self, work: Callable[[], None]) -> None:
        try:
            work()
        except (StorageError, WorkerError) as error:
            log.warning("work_failed", code=error.code, reason=str(error))
        except Exception:
            # Whatever it is, go on: without this thread the worker would be idle for ever.
            log.exception("work_failed")

    def _run_chunks(self, runner: WorkerContext) -> None:
        committed = drain(runner, self._models)
        if runner.engines.failures:
            self.job_done.notify()
        if committed and not self._worker.stopping.is_set():
            # The last chunk of a job may be done: do not wait for the reconciler.
            self._rest(self._ticked_at + TICK_SECONDS)
            self._ticked_at = time.monotonic()
            tick(self._worker)
            self._wakeup.notify()

    def _write_shards(self) -> None:
        while not self._worker.ending and write_output(self._worker):
            # With the last shard a job is to be finalized.
            self._wakeup.notify()

    def _run_jobs(self, *, short: bool, finalize_first: bool) -> None:
        self._before()
        found = True
        while found:
            found = False
            for job, allowance in self._queue.next(short=short, finalize_first=finalize_first):
                if self._worker.ending:
                    return
                self._safely(partial(self._run_job, job, allowance))
                found = True

    def _run_job(self, job: WaitingJob, allowance: Allowance) -> None:
        work = plan_job if job.plan else finalize_job
        if work(self._worker, job.job_id, allowance):
            self._queue.ended(job.job_id)
            self.job_done.notify()
        else:
            self._queue.given_back(job.job_id)
        # Not left to a wake-up, which may come before anybody listens to the model's queue.
        self._wakeup.notify()
