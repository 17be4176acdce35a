"""The leases of the chunks that a worker holds, renewed together in one transaction.

So a slow renewal delays no other, and many chunks cost the database little more than one.
"""

import threading
import time
from collections.abc import Collection
from dataclasses import dataclass

from storage.jobs.chunks import ChunkLease, renew_chunks, stop_reasons
from worker.context import WorkerContext
from worker.lease import Lease, Renewal
from worker.run.chunk_run import ChunkRun

# A job that is to stop is noticed by reading its row, more often than leases are renewed.
CHECK_STOP_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class _Entry:
    run: ChunkRun
    lease: Lease


class ChunkLeases:
    """For two threads: the drain loop's adds and drops chunks, a `LeaseKeeper`'s calls `keep`."""

    def __init__(self, worker: WorkerContext) -> None:
        self._worker = worker
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._renewed_at = time.monotonic()

    @property
    def every_seconds(self) -> float:
        """How often `keep` is to be called."""
        return min(self._worker.renew_seconds, CHECK_STOP_SECONDS)

    def add(self, run: ChunkRun, since: float) -> Lease:
        """The lease of a claimed chunk, renewed from now on; ``since`` is as in `Lease`."""
        chunk = run.chunk
        name = f"{chunk.id} attempt {chunk.attempt}"
        lease = Lease(name, seconds=self._worker.settings.worker.lease_seconds, since=since)
        with self._lock:
            self._entries[chunk.id] = _Entry(run, lease)
        return lease

    def drop(self, chunk_id: str) -> None:
        """Renew a chunk's lease no more."""
        with self._lock:
            self._entries.pop(chunk_id, None)

    def keep(self) -> None:
        """Renew the leases if that is due; if not, only look whether a job is to stop.

        Raises:
            StorageError: the database is away; no lease is lost by that yet.
        """
        with self._lock:
            entries = {
                chunk_id: entry for chunk_id, entry in self._entries.items() if not entry.lease.lost
            }
        if not entries:
            return
        now = time.monotonic()
        if now - self._renewed_at >= self._worker.renew_seconds - self.every_seconds / 2:
            self._renew(entries, now)
        else:
            self._check_stops(entries.values())

    def _renew(self, entries: dict[str, _Entry], now: float) -> None:
        wanted = [
            ChunkLease(chunk_id, entry.run.chunk.attempt, entry.run.counts)
            for chunk_id, entry in entries.items()
        ]
        seconds = self._worker.settings.worker.lease_seconds
        renewed = renew_chunks(self._worker.database, wanted, lease_seconds=seconds)
        for chunk_id, entry in entries.items():
            found = renewed[chunk_id]
            entry.lease.renewed(Renewal(found.still_mine, found.stop), now)
        self._renewed_at = now

    def _check_stops(self, entries: Collection[_Entry]) -> None:
        jobs = {entry.run.chunk.job_id for entry in entries}
        reasons = stop_reasons(self._worker.database, jobs)
        for entry in entries:
            entry.lease.stop = reasons.get(entry.run.chunk.job_id) or entry.lease.stop
