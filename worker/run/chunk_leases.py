"""The leases of the chunks that a worker holds: renewed together, in one transaction.

So a renewal that is slow holds back no other, and many chunks cost the database little more than
one.
"""

import threading
import time
from dataclasses import dataclass

from storage.jobs.chunks import ChunkLease, renew_chunks, stop_reasons
from worker.context import WorkerContext
from worker.lease import Lease, Renewal
from worker.run.chunk_run import ChunkRun

# A cancelled job's lines end as soon as this is noticed, so it is asked more often than renewed.
LOOK_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class _Kept:
    run: ChunkRun
    lease: Lease


class ChunkLeases:
    """Made by the drain loop's thread; `keep` is called by a `LeaseKeeper`'s."""

    def __init__(self, worker: WorkerContext) -> None:
        self._worker = worker
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}
        self._renewed_at = time.monotonic()

    @property
    def every_seconds(self) -> float:
        """How often `keep` is to be called."""
        return min(self._worker.renew_seconds, LOOK_SECONDS)

    def hold(self, run: ChunkRun, since: float) -> Lease:
        """Keep a claimed chunk from now on; ``since`` is as in `Lease`."""
        chunk = run.chunk
        name = f"{chunk.id} attempt {chunk.attempt}"
        lease = Lease(name, seconds=self._worker.settings.worker.lease_seconds, since=since)
        with self._lock:
            self._kept[chunk.id] = _Kept(run, lease)
        return lease

    def drop(self, chunk_id: str) -> None:
        """Keep it no more."""
        with self._lock:
            self._kept.pop(chunk_id, None)

    def keep(self) -> None:
        """Renew what is due, or only ask whether a job is to stop.

        Raises:
            StorageError: the database is away, which is not yet a loss.
        """
        with self._lock:
            kept = {id_: held for id_, held in self._kept.items() if not held.lease.lost}
        if not kept:
            return
        now = time.monotonic()
        if now - self._renewed_at >= self._worker.renew_seconds - self.every_seconds / 2:
            self._renew(kept, now)
        else:
            self._look(kept)

    def _renew(self, kept: dict[str, _Kept], now: float) -> None:
        wanted = [
            ChunkLease(chunk_id, held.run.chunk.attempt, held.run.counts)
            for chunk_id, held in kept.items()
        ]
        seconds = self._worker.settings.worker.lease_seconds
        answers = renew_chunks(self._worker.database, wanted, lease_seconds=seconds)
        for chunk_id, held in kept.items():
            answer = answers[chunk_id]
            held.lease.answered(Renewal(answer.still_mine, answer.stop), now)
        self._renewed_at = now

    def _look(self, kept: dict[str, _Kept]) -> None:
        jobs = {held.run.chunk.job_id for held in kept.values()}
        reasons = stop_reasons(self._worker.database, jobs)
        for held in kept.values():
            held.lease.stop = reasons.get(held.run.chunk.job_id) or held.lease.stop
