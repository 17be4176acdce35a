"""The chunks that a drain loop holds, from the claim to one of four ends.

A chunk is committed, given back unchanged, given back as crashed, or abandoned because its lease is
lost; nothing may be written for an abandoned chunk.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import structlog

from storage.database.tables import Chunk
from storage.errors import ObjectNotFound, StateConflict, StorageError
from storage.estimates.engine_time import EngineTime
from storage.jobs.chunks import release_chunk
from storage.jobs.claims import claim_chunks
from storage.jobs.crashes import crash_chunk
from worker.context import WorkerContext
from worker.errors import BrokenPlan, LeaseLost, PartMismatch
from worker.lease import Lease
from worker.plan.plan_file import PlanFile
from worker.run.chunk_leases import ChunkLeases
from worker.run.chunk_run import ChunkRun
from worker.run.commit import commit_part
from worker.run.lost_plan import give_up_plan

log = structlog.get_logger(__name__)

FIRST_RETRY_SECONDS = 0.2
LONGEST_RETRY_SECONDS = 5.0
FIRST_BACKOFF_SECONDS = 5.0
LONGEST_BACKOFF_SECONDS = 60.0


@dataclass(slots=True)
class HeldChunk:
    """A chunk under this worker's lease.

    Attributes:
        claimed_at: monotonic seconds.
        submitted: whether its requests were handed to the engine.
        rated_as: what that engine is rated as.
        seconds, steps: its share of the engine's time and steps so far.
    """

    run: ChunkRun
    lease: Lease
    claimed_at: float
    submitted: bool = False
    rated_as: str = ""
    seconds: float = 0.0
    steps: float = 0.0

    @property
    def chunk(self) -> Chunk:
        """The row as it was claimed."""
        return self.run.chunk

    @property
    def at_work(self) -> bool:
        """Whether the engine has requests of it in hand."""
        return self.submitted and self.run.pending > 0

    @property
    def took(self) -> EngineTime | None:
        """What it took of an engine, if any ran it.

        Of a chunk that was stopped no rate can be learned: what was done of it is not counted.
        """
        device = self.rated_as if self.run.stopped is None else None
        return EngineTime(device, self.seconds, self.steps) if self.submitted else None

    @property
    def alone(self) -> bool:
        """Whether it must not share the engine, because it crashed before."""
        return self.chunk.crashes > 0


class HeldChunks:
    """The chunks that this process holds, all of one model at a time. For one thread.

    Attributes:
        leases: the chunks' leases, for another thread to renew.
        committed: how many chunks were committed.
    """

    def __init__(self, worker: WorkerContext) -> None:
        self._worker = worker
        self.leases = ChunkLeases(worker)
        self._held: dict[str, HeldChunk] = {}
        self.committed = 0

    def __iter__(self) -> Iterator[HeldChunk]:
        return iter(list(self._held.values()))

    def __len__(self) -> int:
        return len(self._held)

    @property
    def pending(self) -> int:
        """Requests of all chunks that have no completion yet."""
        return sum(held.run.pending for held in self._held.values())

    @property
    def lines(self) -> int:
        """Lines of all chunks."""
        return sum(held.chunk.b - held.chunk.a for held in self._held.values())

    def get(self, chunk_id: str, attempt: int) -> HeldChunk | None:
        """A chunk by its id, if it is held under this attempt."""
        held = self._held.get(chunk_id)
        return held if held is not None and held.chunk.attempt == attempt else None

    def claim(self, model: str, lines: int) -> bool:
        """Claim chunks of this model with about so many lines; returns whether there was one."""
        since = time.monotonic()
        settings = self._worker.settings
        try:
            found = claim_chunks(
                self._worker.database,
                self._worker.owner,
                [model],
                lines=lines,
                lease_seconds=settings.worker.lease_seconds,
                max_crashes=settings.worker.max_crashes,
            )
        except StorageError as error:
            log.warning("claim_failed", model=model, reason=error.code)
            return False
        return self._hold_all(found, since)

    def _hold_all(self, found: Sequence[Chunk], since: float) -> bool:
        """Whether any of the claimed chunks is held now; the others are given back."""
        held = 0
        for place, chunk in enumerate(found):
            try:
                held += self._hold(chunk, since)
            except BaseException:
                for other in found[place + 1 :]:
                    self._return(other, delay=0.0)
                raise
        return held > 0

    def _hold(self, chunk: Chunk, since: float) -> bool:
        try:
            with self._worker.store.reader(chunk.plan_key) as stream:
                run = ChunkRun(chunk, PlanFile(stream.read()))
        except (ObjectNotFound, BrokenPlan) as error:
            give_up_plan(self._worker, chunk, error.code)
            self._return(chunk, delay=backoff(chunk))
            return False
        except StorageError as error:
            log.error("plan_not_read", **_names(chunk), reason=str(error))
            self._return(chunk, delay=backoff(chunk))
            return False
        except BaseException:
            self._return(chunk, delay=backoff(chunk))
            raise
        self._held[chunk.id] = HeldChunk(run, self.leases.add(run, since), since)
        log.info(
            "chunk_claimed",
            **_names(chunk),
            lines=chunk.b - chunk.a,
            requests=run.pending,
            crashes=chunk.crashes,
        )
        return True

    def commit(self, held: HeldChunk) -> None:
        """Write the part and commit the chunk; tried again for as long as the lease is held."""
        pause = FIRST_RETRY_SECONDS
        while True:
            try:
                held.lease.check()
                commit_part(
                    self._worker, held.chunk, held.run.records(), held.run.counts, held.took
                )
                break
            except (LeaseLost, StateConflict, PartMismatch) as error:
                self.abandon(held, error.code)
                return
            except StorageError as error:
                log.warning("commit_failed", **_names(held.chunk), reason=str(error))
                if not error.retryable:
                    self.give_back(held, delay=backoff(held.chunk))
                    return
                if self._worker.stopping.wait(pause):
                    self.give_back(held)
                    return
                pause = min(2 * pause, LONGEST_RETRY_SECONDS)
        self._forget(held)
        self.committed += 1
        if all(other.chunk.job_id != held.chunk.job_id for other in self):
            self._worker.committed.set()
        self._worker.metrics.committed(held.chunk.model, held.run.counts)
        counts = held.run.counts
        log.info(
            "chunk_done",
            **_names(held.chunk),
            ok=counts.ok,
            errors=counts.err,
            prompt_tokens=counts.prompt_tokens,
            cached_tokens=counts.cached_tokens,
            completion_tokens=counts.completion_tokens,
            seconds=round(time.monotonic() - held.claimed_at, 3),
            engine_seconds=round(held.seconds, 3),
        )

    def abandon(self, held: HeldChunk, reason: str) -> None:
        """Drop a chunk whose lease is lost, and write nothing more for it."""
        self._forget(held)
        self._worker.metrics.abandoned(held.chunk.model)
        log.warning("chunk_abandoned", **_names(held.chunk), reason=reason)

    def give_back(self, held: HeldChunk, *, delay: float = 0.0) -> None:
        """Return a chunk that did not crash, to be claimed again after ``delay`` seconds."""
        self._forget(held)
        self._return(held.chunk, delay=delay)

    def crashed(self, held: HeldChunk, *, engine: bool) -> None:
        """Return a chunk as crashed; ``engine`` tells whether the engine died."""
        self._forget(held)
        chunk = held.chunk
        try:
            crash_chunk(self._worker.database, chunk.id, chunk.attempt, engine=engine)
            self._worker.metrics.given_back(chunk.model, crashed=True)
            log.warning("chunk_crashed", **_names(chunk), engine=engine)
        except StorageError as error:
            # Its lease will run out, and that counts as a crash too.
            log.warning("chunk_not_given_back", **_names(chunk), reason=error.code)

    def _return(self, chunk: Chunk, *, delay: float) -> None:
        try:
            release_chunk(self._worker.database, chunk.id, chunk.attempt, delay=delay)
            self._worker.metrics.given_back(chunk.model, crashed=False)
            log.info("chunk_given_back", **_names(chunk), delay=delay)
        except StorageError as error:
            # Its lease will run out, and the chunk becomes claimable again.
            log.warning("chunk_not_given_back", **_names(chunk), reason=error.code)

    def _forget(self, held: HeldChunk) -> None:
        self.leases.drop(held.chunk.id)
        del self._held[held.chunk.id]
        held.run.close()


def backoff(chunk: Chunk) -> float:
    """Seconds before a chunk is claimable again after a storage error; longer at each attempt."""
    return min(FIRST_BACKOFF_SECONDS * 2.0 ** min(chunk.attempt - 1, 9), LONGEST_BACKOFF_SECONDS)


def _names(chunk: Chunk) -> dict[str, str | int]:
    return {"job": chunk.job_id, "chunk": chunk.id, "attempt": chunk.attempt}
