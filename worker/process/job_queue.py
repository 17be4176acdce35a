"""Which job a worker's threads plan or finalize next: no small one waits for a large one.

Some threads have short jobs alone, others the rest. A job that looks short and is not, as a gzip
file can be, is given back after some ten thousand lines or a few seconds, and is long from then on.
A long one is given back when others wait too, after a time that doubles with each try: so one of a
minute does not wait for one of a day, and no job is begun anew more often than its size doubles.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from storage.errors import StorageError
from storage.jobs.waiting_jobs import SHORT_LINES, WaitingJob, waiting_jobs
from worker.allowance import Allowance
from worker.context import WorkerContext

SHORT_BEATS = 3 * SHORT_LINES
SHORT_SECONDS = 3.0
LONG_SECONDS = 30.0
MOST_REMEMBERED = 500
LOOK_SECONDS = 1.0  # after which a thread looks anew: a job that came meanwhile may go first


class JobQueue:
    """Shared by the threads of one worker, which is what it remembers of jobs. Thread-safe."""

    def __init__(self, worker: WorkerContext) -> None:
        self._worker = worker
        self._lock = threading.Lock()
        self._at_work: set[str] = set()
        self._tries: dict[str, int] = {}  # of jobs that were given back

    def next(self, *, short: bool, finalize_first: bool) -> Iterator[tuple[WaitingJob, Allowance]]:
        """Jobs for the calling thread, each at work until the next is asked for.

        Raises:
            StorageError: the database is away.
        """
        found = self._look(short)
        looked_at = time.monotonic()
        for job in sorted(found, key=lambda job: job.plan == finalize_first):
            with self._working(job.job_id) as mine:
                if mine:
                    yield job, self._allowance(job.job_id, short)
            if time.monotonic() > looked_at + LOOK_SECONDS:
                return

    def given_back(self, job_id: str) -> None:
        """Note that a job used up its allowance."""
        with self._lock:
            self._tries[job_id] = self._tries.get(job_id, 0) + 1
            while len(self._tries) > MOST_REMEMBERED:
                del self._tries[next(iter(self._tries))]

    def ended(self, job_id: str) -> None:
        """Forget a job: what is to be done of it later is another matter."""
        with self._lock:
            self._tries.pop(job_id, None)

    @contextmanager
    def _working(self, job_id: str) -> Iterator[bool]:
        """Whether no other thread of this worker has the job; no other gets it meanwhile."""
        with self._lock:
            mine = job_id not in self._at_work
            self._at_work.add(job_id)
        try:
            yield mine
        finally:
            if mine:
                with self._lock:
                    self._at_work.remove(job_id)

    def _look(self, short: bool) -> list[WaitingJob]:
        with self._lock:
            tries = dict(self._tries)
            at_work = set(self._at_work)
        found = waiting_jobs(self._worker.database, short=short, long_ids=tries)
        free = [job for job in found if job.job_id not in at_work]
        return sorted(free, key=lambda job: tries.get(job.job_id, 0))

    def _allowance(self, job_id: str, short: bool) -> Allowance:
        if short:
            return Allowance(SHORT_BEATS, SHORT_SECONDS)
        tries = self._tries.get(job_id, 0)
        return Allowance(seconds=LONG_SECONDS * 2.0**tries, needed=self._long_ones_wait)

    def _long_ones_wait(self) -> bool:
        try:
            return bool(self._look(short=False))
        except StorageError:  # not worth what was done of the job so far
            return False
