"""The chunks that a drain loop holds: claimed, renewed, and ended in one of four ways.

A chunk is committed, given back as it was, given back as crashed, or abandoned because its lease
was lost; after the last of these nothing may be written for it.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import structlog

from storage.chunks import claim_chunk, crash_chunk, release_chunk, renew_chunk
from storage.errors import ObjectNotFound, StateConflict, StorageError
from storage.tables import Chunk
from worker.chunk_run import ChunkRun
from worker.commit import commit_part
from worker.context import WorkerContext
from worker.errors import BrokenPlan, LeaseLost, PartMismatch
from worker.lease import Lease, LeaseKeeper, Renewal
from worker.lost_plan import give_up_plan
from worker.plan.plan_file import PlanFile

log = structlog.get_logger(__name__)

FIRST_RETRY_SECONDS = 0.2
LONGEST_RETRY_SECONDS = 5.0
FIRST_BACKOFF_SECONDS = 5.0
LONGEST_BACKOFF_SECONDS = 60.0


@dataclass(slots=True)
class Held:
    """A chunk that is held: its lease, its run, and whether the engine has it."""

    run: ChunkRun
    lease: Lease
    claimed_at: float
    submitted: bool = False

    @property
    def chunk(self) -> Chunk:
        """The row as it was claimed."""
        return self.run.chunk

    @property
    def alone(self) -> bool:
        """Whether it must not share the engine, having crashed before."""
        return self.chunk.crashes > 0


class Holding:
    """The chunks of one model that this process holds. For one thread."""

    def __init__(self, worker: WorkerContext, model: str, keeper: LeaseKeeper) -> None:
        self._worker = worker
        self._model = model
        self._keeper = keeper
        self._held: dict[str, Held] = {}
        self.committed = 0

    def __iter__(self) -> Iterator[Held]:
        return iter(list(self._held.values()))

    def __len__(self) -> int:
        return len(self._held)

    @property
    def pending(self) -> int:
        """Requests that have no answer yet, over all chunks."""
        return sum(held.run.pending for held in self._held.values())

    @property
    def lines(self) -> int:
        """Lines of all chunks."""
        return sum(held.chunk.b - held.chunk.a for held in self._held.values())

    def get(self, chunk_id: str, attempt: int) -> Held | None:
        """A chunk by its id, if it is held under this very attempt."""
        held = self._held.get(chunk_id)
        return held if held is not None and held.chunk.attempt == attempt else None

    def claim(self) -> bool:
        """Claim one more chunk; whether there was one."""
        since = time.monotonic()
        settings = self._worker.settings
        try:
            chunk = claim_chunk(
                self._worker.database,
                self._worker.owner,
                [self._model],
                lease_seconds=settings.lease_seconds,
                max_crashes=settings.max_crashes,
            )
        except StorageError as error:
            log.warning("claim_failed", model=self._model, reason=error.code)
            return False
        return chunk is not None and self._hold(chunk, since)

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
        lease = self._lease(run, since)
        self._held[chunk.id] = Held(run, lease, since)
        self._keeper.hold(lease)
        log.info(
            "chunk_claimed",
            **_names(chunk),
            lines=chunk.b - chunk.a,
            requests=run.pending,
            crashes=chunk.crashes,
        )
        return True

    def _lease(self, run: ChunkRun, since: float) -> Lease:
        seconds = self._worker.settings.lease_seconds
        chunk = run.chunk

        def renew() -> Renewal:
            answer = renew_chunk(
                self._worker.database, chunk.id, chunk.attempt, run.counts, lease_seconds=seconds
            )
            return Renewal(answer.still_mine, answer.stop)

        name = f"{chunk.id} attempt {chunk.attempt}"
        return Lease(name, renew, seconds=seconds, since=since)

    def commit(self, held: Held) -> None:
        """Write the part and commit; tried again for as long as the lease holds."""
        pause = FIRST_RETRY_SECONDS
        while True:
            try:
                held.lease.check()
                commit_part(self._worker, held.chunk, held.run.records(), held.run.counts)
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
        )

    def abandon(self, held: Held, reason: str) -> None:
        """Write nothing more for a chunk whose lease is lost."""
        self._forget(held)
        log.warning("chunk_abandoned", **_names(held.chunk), reason=reason)

    def give_back(self, held: Held, *, crashed: bool = False, delay: float = 0.0) -> None:
        """Let somebody run it again, after ``delay`` seconds or, having crashed, after a while."""
        self._forget(held)
        self._return(held.chunk, crashed=crashed, delay=delay)

    def _return(self, chunk: Chunk, *, crashed: bool = False, delay: float = 0.0) -> None:
        database = self._worker.database
        try:
            if crashed:
                crash_chunk(database, chunk.id, chunk.attempt)
            else:
                release_chunk(database, chunk.id, chunk.attempt, delay=delay)
            log.info("chunk_given_back", **_names(chunk), crashed=crashed, delay=delay)
        except StorageError as error:
            # Its lease will run out, which comes to the same.
            log.warning("chunk_not_given_back", **_names(chunk), reason=error.code)

    def _forget(self, held: Held) -> None:
        self._keeper.drop(held.lease)
        del self._held[held.chunk.id]
        held.run.close()


def backoff(chunk: Chunk) -> float:
    """Seconds for which a chunk rests after a fault of the storage; longer at each attempt."""
    return min(FIRST_BACKOFF_SECONDS * 2.0 ** min(chunk.attempt - 1, 9), LONGEST_BACKOFF_SECONDS)


def _names(chunk: Chunk) -> dict[str, str | int]:
    return {"job": chunk.job_id, "chunk": chunk.id, "attempt": chunk.attempt}
