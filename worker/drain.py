"""The drain loop: claimed chunks through the resident engine, until nothing is claimable.

The next chunk is claimed while earlier ones still run, so that the engine's batch never empties
between chunks or jobs. A chunk that crashed before runs alone: if the engine dies again, only that
chunk is to blame.
"""

import time
from dataclasses import dataclass

import structlog

from engine.errors import EngineDied, EngineError
from engine.requests import Completion
from storage.chunks import claim_chunk, crash_chunk, release_chunk, renew_chunk
from storage.errors import StateConflict, StorageError
from storage.tables import Chunk
from worker.chunk_run import ChunkRun
from worker.commit import commit_part
from worker.context import WorkerContext
from worker.engines import Resident
from worker.errors import LeaseLost, PartMismatch
from worker.lease import Lease, LeaseKeeper, Renewal
from worker.plan.plan_file import PlanFile

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.1
CLAIM_PAUSE_SECONDS = 0.5  # between claims while there was nothing to claim and work goes on
FIRST_RETRY_SECONDS = 0.2
LONGEST_RETRY_SECONDS = 5.0
BATCHES_AHEAD = 2  # requests handed to the engine, in multiples of what it runs at once


@dataclass(slots=True)
class Held:
    """A chunk that this loop holds: its lease, its run, and whether the engine has it."""

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


def drain(worker: WorkerContext, model: str) -> int:
    """Run chunks of a model until none is claimable; how many were committed.

    Returns at once while another drain loop of this process runs, or while the model's engine
    failed to start a moment ago.
    """
    if worker.engines.resting(model) or not worker.draining.acquire(blocking=False):
        return 0
    try:
        with LeaseKeeper(worker.renew_seconds) as keeper:
            return DrainLoop(worker, model, keeper).run()
    finally:
        worker.draining.release()


class DrainLoop:
    """One run of the loop. All but the keeper's renewals happens in the calling thread."""

    def __init__(self, worker: WorkerContext, model: str, keeper: LeaseKeeper) -> None:
        self._worker = worker
        self._model = model
        self._keeper = keeper
        self._held: dict[str, Held] = {}
        self._resident: Resident | None = None
        self._next_claim = 0.0
        self._committed = 0

    def run(self) -> int:
        """Loop; see `drain`."""
        try:
            while not self._worker.stopping.is_set():
                self._drop_lost()
                self._claim()
                if not self._held:
                    break
                try:
                    self._step()
                except EngineDied as error:
                    self._engine_died(error)
                except EngineError:
                    # It did not start; `Engines` has logged why and lets it rest.
                    break
        except BaseException:
            # Whatever this is, it must not come back for ever: each chunk counts it as a crash.
            for held in list(self._held.values()):
                self._end(held, crashed=True)
            raise
        self._give_back()
        return self._committed

    def _step(self) -> None:
        self._stop_cancelled()
        self._submit()
        if self._resident is not None and any(held.submitted for held in self._held.values()):
            for completion in self._resident.engine.poll(POLL_SECONDS):
                self._accept(completion)
        for held in [held for held in self._held.values() if not held.run.pending]:
            self._commit(held)

    # Claiming

    def _claim(self) -> None:
        """Claim until the engine has enough ahead, or nothing is claimable."""
        while self._wants_more() and time.monotonic() >= self._next_claim:
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
                chunk = None
            if chunk is None:
                self._next_claim = time.monotonic() + CLAIM_PAUSE_SECONDS
                if self._resident is not None and self._resident.engine.alive:
                    self._resident.engine.flush()
                return
            self._hold(chunk, since)

    def _wants_more(self) -> bool:
        if any(held.alone for held in self._held.values()):
            return False
        ahead = sum(held.run.pending for held in self._held.values())
        if self._resident is None:
            return ahead == 0
        return ahead < BATCHES_AHEAD * self._resident.info.max_num_seqs

    def _hold(self, chunk: Chunk, since: float) -> None:
        try:
            with self._worker.store.reader(chunk.plan_key) as stream:
                run = ChunkRun(chunk, PlanFile(stream.read()))
        except StorageError as error:
            log.error("plan_not_read", chunk=chunk.id, job=chunk.job_id, reason=error.code)
            back = release_chunk if error.retryable else crash_chunk
            back(self._worker.database, chunk.id, chunk.attempt)
            self._next_claim = time.monotonic() + CLAIM_PAUSE_SECONDS
            return

        def renew() -> Renewal:
            answer = renew_chunk(
                self._worker.database,
                chunk.id,
                chunk.attempt,
                run.counts,
                lease_seconds=self._worker.settings.lease_seconds,
            )
            return Renewal(answer.still_mine, answer.stop)

        name = f"{chunk.id} attempt {chunk.attempt}"
        lease = Lease(name, renew, seconds=self._worker.settings.lease_seconds, since=since)
        self._held[chunk.id] = Held(run, lease, since)
        self._keeper.hold(lease)
        log.info(
            "chunk_claimed",
            **_names(chunk),
            lines=chunk.b - chunk.a,
            requests=run.pending,
            crashes=chunk.crashes,
        )

    # Running

    def _submit(self) -> None:
        for held in self._held.values():
            waits_its_turn = held.alone and len(self._held) > 1
            if held.submitted or not held.run.pending or waits_its_turn:
                continue
            source = held.run.plan.header.source
            if self._resident is None or self._resident.source != source:
                if any(other.submitted for other in self._held.values()):
                    continue  # another engine: when this one has nothing left to do
                self._resident = self._worker.engines.get(self._model, source)
            held.submitted = True
            self._resident.engine.submit(held.run.requests())

    def _accept(self, completion: Completion) -> None:
        chunk_id, attempt, _ = completion.request_id.split("/")
        held = self._held.get(chunk_id)
        # Chunks that were given up still have answers on their way.
        if held is not None and held.chunk.attempt == int(attempt):
            held.run.accept(completion)

    def _stop_cancelled(self) -> None:
        """The job is cancelled or expired: keep what is done, and wait for nothing more."""
        for held in self._held.values():
            reason = held.lease.stop
            if reason is None or held.run.stopped is not None:
                continue
            log.info("chunk_stopping", **_names(held.chunk), reason=reason)
            self._cancel(held)
            held.run.give_up(reason)

    def _cancel(self, held: Held) -> None:
        if held.submitted and self._resident is not None and self._resident.engine.alive:
            self._resident.engine.cancel(held.run.pending_ids())

    def _engine_died(self, error: EngineDied) -> None:
        self._worker.engines.discard()
        self._resident = None
        if self._worker.stopping.is_set():
            return
        log.error(
            "engine_died",
            model=self._model,
            exit_code=error.exit_code,
            reason=str(error),
            log_tail=error.log_tail,
        )
        for held in list(self._held.values()):
            if held.submitted and held.run.pending:
                self._end(held, crashed=True)

    # Ending a chunk

    def _commit(self, held: Held) -> None:
        """Write the part and commit, again for as long as the lease holds."""
        run = held.run
        pause = FIRST_RETRY_SECONDS
        while True:
            try:
                held.lease.check()
                commit_part(self._worker, held.chunk, run.records(), run.counts)
                break
            except (LeaseLost, StateConflict, PartMismatch) as error:
                log.warning("chunk_abandoned", **_names(held.chunk), reason=error.code)
                self._forget(held)
                return
            except StorageError as error:
                log.warning("commit_failed", **_names(held.chunk), reason=str(error))
                if not error.retryable or self._worker.stopping.wait(pause):
                    self._end(held, crashed=not error.retryable)
                    return
                pause = min(2 * pause, LONGEST_RETRY_SECONDS)
        self._forget(held)
        self._committed += 1
        log.info(
            "chunk_done",
            **_names(held.chunk),
            ok=run.counts.ok,
            errors=run.counts.err,
            prompt_tokens=run.counts.prompt_tokens,
            cached_tokens=run.counts.cached_tokens,
            completion_tokens=run.counts.completion_tokens,
            seconds=round(time.monotonic() - held.claimed_at, 3),
        )

    def _drop_lost(self) -> None:
        for held in [held for held in self._held.values() if held.lease.lost]:
            log.warning("chunk_abandoned", **_names(held.chunk), reason="lease_lost")
            self._cancel(held)
            self._forget(held)

    def _give_back(self) -> None:
        for held in list(self._held.values()):
            self._cancel(held)
            self._end(held, crashed=False)

    def _end(self, held: Held, *, crashed: bool) -> None:
        """Give a chunk back, as crashed or as it was."""
        self._forget(held)
        back = crash_chunk if crashed else release_chunk
        try:
            back(self._worker.database, held.chunk.id, held.chunk.attempt)
            log.info("chunk_given_back", **_names(held.chunk), crashed=crashed)
        except StorageError as error:
            # Its lease will run out, which comes to the same.
            log.warning("chunk_not_given_back", **_names(held.chunk), reason=error.code)

    def _forget(self, held: Held) -> None:
        self._keeper.drop(held.lease)
        del self._held[held.chunk.id]
        held.run.close()


def _names(chunk: Chunk) -> dict[str, str | int]:
    return {"job": chunk.job_id, "chunk": chunk.id, "attempt": chunk.attempt}
