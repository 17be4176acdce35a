"""Everybody at once, unforced: workers that die, reconcilers, clients who change their minds."""

import random
import threading
import time
from collections.abc import Callable

from moves import commit, every_chunk, let_waits_pass, ranges_partition_the_lines
from storage.database.connection import Database
from storage.database.states import TERMINAL_JOB_STATES, ChunkState
from storage.database.tables import Chunk, Job
from storage.errors import StateConflict
from storage.jobs import chunks, crashes, finalizing, jobs
from storage.jobs.chunks import ChunkLease, Counts
from storage.jobs.finalizing import Results
from storage.jobs.reconcile import reconcile

Create = Callable[..., Job]


class Crowd:
    """Threads that each do one part until every job has ended."""

    def __init__(self, database: Database, jobs_made: list[Job]) -> None:
        self.database = database
        self.jobs = jobs_made
        self.over = threading.Event()
        self.failures: list[BaseException] = []
        self.commits: list[str] = []

    def run(self, *parts: Callable[[random.Random], None]) -> None:
        threads = [
            threading.Thread(target=self._guarded, args=(part, random.Random(number)))
            for number, part in enumerate(parts)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            self.over.set()

    def _guarded(self, part: Callable[[random.Random], None], dice: random.Random) -> None:
        try:
            while not self.over.is_set():
                part(dice)
        except BaseException as error:  # noqa: BLE001 - reported by the test's own thread
            self.failures.append(error)
            self.over.set()

    def work(self, dice: random.Random) -> None:
        """Claim a chunk and commit it, or die of it, or lose it and come back too late."""
        chunk = chunks.claim_chunk(
            self.database, "w", ["smollm2"], lease_seconds=dice.choice([0.0, 45.0]), max_crashes=99
        )
        if chunk is None:
            let_waits_pass(self.database)
            return
        leases = [ChunkLease(chunk.id, chunk.attempt, Counts(1))]
        try:
            match dice.randrange(8):
                case 0:
                    crashes.crash_chunk(self.database, chunk.id, chunk.attempt, engine=True)
                case 1:
                    chunks.release_chunk(self.database, chunk.id, chunk.attempt)
                case 2:  # its lease is left to run out
                    chunks.renew_chunks(self.database, leases, lease_seconds=0)
                case _:
                    chunks.renew_chunks(self.database, leases, lease_seconds=dice.choice([0, 45]))
                    self.commits.append(commit(self.database, chunk).id)
        except StateConflict:
            return  # it came too late

    def settle(self, dice: random.Random) -> None:
        """Reconcile, and put the results together."""
        reconcile(self.database, max_crashes=99)
        job = finalizing.claim_finalize(self.database, "f", lease_seconds=dice.choice([0.0, 45.0]))
        if job is not None:
            sums = jobs.progress(self.database, job.id)
            results = Results(sums.n_ok, sums.n_err + sums.n_cancelled, None, None)
            try:
                finalizing.commit_final(self.database, job.id, job.fin_epoch, results)
            except StateConflict:
                return  # another finalizer has it by now
        kept = [jobs.load(self.database, each.id) for each in self.jobs]
        if all(job.state in TERMINAL_JOB_STATES for job in kept):
            self.over.set()

    def interfere(self, dice: random.Random) -> None:
        """Pause and resume any job; now and then cancel the last one."""
        job = dice.choice(self.jobs)
        try:
            jobs.pause(self.database, "acme", job.id)
            jobs.resume(self.database, "acme", job.id)
            if job is self.jobs[-1] and not dice.randrange(20):
                jobs.request_stop(self.database, "acme", job.id)
        except StateConflict:
            time.sleep(0.01)


def test_everybody_at_once(database: Database, running_job: Create) -> None:
    made = [running_job(*[4] * 10) for _ in range(3)]
    crowd = Crowd(database, made)
    crowd.run(crowd.work, crowd.work, crowd.work, crowd.settle, crowd.settle, crowd.interfere)
    assert crowd.failures == []
    committed: list[Chunk] = []
    for job in made:
        ended = jobs.load(database, job.id)
        own = every_chunk(database, job)
        ranges_partition_the_lines(ended, own)
        done = [chunk for chunk in own if chunk.state == ChunkState.DONE]
        committed += done
        assert ended.n_ok == sum(chunk.b - chunk.a for chunk in done)
        assert ended.n_ok + ended.n_cancelled == 40
        assert ended.state == ("completed" if ended.cancel is None else "cancelled")
        assert (ended.n_cancelled > 0) <= (ended.cancel is not None)
    # Whoever was told that its commit took effect was told the truth, and nobody twice.
    assert sorted(crowd.commits) == sorted(chunk.id for chunk in committed)
