"""The drain loop: claimed chunks through the resident engine, until nothing is claimable.

The next chunk is claimed while earlier ones still run, so that the engine's batch never empties
between chunks or jobs. Of several models the most urgent runs first. A chunk that crashed before
runs alone: if the engine dies again, only that chunk can be the cause.
"""

import time
from collections.abc import Collection

import structlog

from engine.errors import EngineDied
from engine.requests import Completion
from storage.errors import StorageError
from worker.context import WorkerContext
from worker.errors import ModelNotReady, ModelUnavailable, Stopping
from worker.lease import LeaseKeeper
from worker.models.engines import Resident
from worker.run.engine_clock import EngineClock
from worker.run.held_chunks import HeldChunk, HeldChunks, backoff
from worker.run.model_choice import ModelChoice
from worker.run.waiting import tell_running, tell_wait

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.1
CLAIM_PAUSE_SECONDS = 0.5  # after a claim that found nothing, while the engine is at work
BATCHES_AHEAD = 2  # requests to hand to the engine, in multiples of what it runs at once


def drain(worker: WorkerContext, models: str | Collection[str] | None = None) -> int:
    """Run chunks of these models, or of all, until none is claimable.

    Returns how many were committed; 0 at once if this worker runs another drain loop. Models whose
    engine did not start a moment ago are left out.
    """
    if not worker.draining.acquire(blocking=False):
        return 0
    try:
        return DrainLoop(worker, (models,) if isinstance(models, str) else models).run()
    finally:
        worker.draining.release()


class DrainLoop:
    """One run of the loop, in the calling thread; another thread renews the leases."""

    def __init__(self, worker: WorkerContext, models: Collection[str] | None) -> None:
        self._worker = worker
        self._held_chunks = HeldChunks(worker)
        self._model_choice = ModelChoice(worker, models)
        self._clock = EngineClock()
        self._resident: Resident | None = None
        self._next_claim = 0.0

    def run(self) -> int:
        """Loop; see `drain`."""
        leases = self._held_chunks.leases
        with LeaseKeeper(leases.every_seconds, leases.keep):
            try:
                self._loop()
            except BaseException as error:
                self._release_after(error)
                raise
            self._give_back()
        return self._held_chunks.committed

    def _loop(self) -> None:
        held_chunks = self._held_chunks
        while not self._worker.stopping.is_set():
            try:
                if not self._worker.leaving.is_set():
                    self._claim()
                if not held_chunks:
                    break
                self._advance()
            except EngineDied as error:
                self._engine_died(error)
            except ModelNotReady as error:
                # `Engines` has logged why and lets the model rest; another may have work.
                self._resident = None
                for held in held_chunks:
                    held_chunks.give_back(held)
                tell_wait(self._worker, error)
            except Stopping:
                break

    def _release_after(self, error: BaseException) -> None:
        """Give all chunks back after an unexpected error, which must not repeat for ever.

        It counts as a crash of the chunks in the engine, unless it is an order to exit or an error
        of the storage: those are not caused by a chunk.
        """
        chunk_may_cause_it = isinstance(error, Exception) and not isinstance(error, StorageError)
        for held in self._held_chunks:
            if chunk_may_cause_it and held.submitted:
                self._held_chunks.crashed(held, engine=False)
            else:
                self._held_chunks.give_back(held)

    def _advance(self) -> None:
        """One iteration: submit, take what the engine has completed, commit what is complete."""
        self._drop_lost()
        self._stop_ended_jobs()
        self._submit()
        if self._resident is not None and any(held.submitted for held in self._held_chunks):
            completions = self._resident.engine.poll(POLL_SECONDS)
            self._clock.read(self._resident, self._held_chunks)
            for completion in completions:
                self._accept(completion)
        for held in self._held_chunks:
            if not held.run.pending:
                self._held_chunks.commit(held)

    def _claim(self) -> None:
        """Claim until the engine has enough ahead, or nothing is claimable."""
        held_chunks = self._held_chunks
        while self._wants_more() and (not held_chunks or time.monotonic() >= self._next_claim):
            model = self._model_choice.next(switch=not held_chunks)
            if model is not None and held_chunks.claim(model, self._wanted_lines()):
                continue
            if self._model_choice.fresh:
                self._next_claim = time.monotonic() + CLAIM_PAUSE_SECONDS
                if self._resident is not None:
                    self._resident.engine.flush()
                return
            self._model_choice.refresh()

    def _wanted_lines(self) -> int:
        """How many more the engine could have ahead."""
        if self._resident is None:
            return 1
        most = BATCHES_AHEAD * self._resident.info.max_num_seqs
        return max(1, most - self._held_chunks.pending)

    def _wants_more(self) -> bool:
        held_chunks = self._held_chunks
        # Chunks of many errors or duplicates make few requests, and still take memory.
        if held_chunks.lines >= self._worker.settings.worker.plan_window_lines:
            return False
        if any(held.alone or not held.run.pending for held in held_chunks):
            return False
        if self._resident is None:
            return not held_chunks
        return held_chunks.pending < BATCHES_AHEAD * self._resident.info.max_num_seqs

    def _submit(self) -> None:
        for held in self._held_chunks:
            must_wait = held.alone and len(self._held_chunks) > 1
            if not held.submitted and held.run.pending and not must_wait:
                self._submit_one(held)

    def _submit_one(self, held: HeldChunk) -> None:
        source = held.run.plan.header.source
        if self._resident is None or self._resident.source != source:
            if any(other.submitted for other in self._held_chunks):
                return  # the model has a new source: requests of the old one end first
            self._resident = None
            try:
                self._resident = self._start(held.chunk.model, source)
            except ModelUnavailable as error:
                held.run.refuse(error)
                tell_running(self._worker, held.chunk.model)
                return
        self._clock.start(self._resident, self._held_chunks)
        held.submitted = True
        held.rated_as = self._resident.info.rated_as
        self._resident.engine.submit(held.run.requests())

    def _start(self, model: str, source: str) -> Resident:
        engines = self._worker.engines
        before = engines.resident
        resident = engines.get(model, source)
        if resident is not before:
            tell_running(self._worker, model)
        return resident

    def _accept(self, completion: Completion) -> None:
        chunk_id, attempt, _ = completion.request_id.split("/")
        held = self._held_chunks.get(chunk_id, int(attempt))
        # It is gone if it was given back while completions of it were on their way.
        if held is None:
            return
        try:
            held.run.accept(completion)
        except StorageError as error:
            log.warning("answer_not_kept", chunk=held.chunk.id, reason=str(error))
            self._held_chunks.give_back(held, delay=backoff(held.chunk))
            self._cancel(held)

    def _drop_lost(self) -> None:
        for held in self._held_chunks:
            if held.lease.lost:
                self._cancel(held)
                self._held_chunks.abandon(held, "lease_lost")

    def _stop_ended_jobs(self) -> None:
        """Wait for no more completions of jobs that were cancelled or that expired."""
        for held in self._held_chunks:
            reason = held.lease.stop
            if reason is not None and held.run.stopped is None:
                log.info("chunk_stopping", chunk=held.chunk.id, reason=reason)
                self._cancel(held)
                held.run.give_up(reason)

    def _cancel(self, held: HeldChunk) -> None:
        if held.submitted and self._resident is not None:
            self._resident.engine.cancel(held.run.pending_ids())

    def _engine_died(self, error: EngineDied) -> None:
        self._worker.engines.discard()
        self._resident = None
        if self._worker.stopping.is_set():
            return
        self._worker.metrics.engine_died(self._model_choice.model or "")
        log.error(
            "engine_died",
            model=self._model_choice.model,
            exit_code=error.exit_code,
            reason=str(error),
            log_tail=error.log_tail,
        )
        for held in self._held_chunks:
            if held.submitted and held.run.pending:
                self._held_chunks.crashed(held, engine=True)

    def _give_back(self) -> None:
        try:
            for held in self._held_chunks:
                self._cancel(held)
        except EngineDied:
            self._worker.engines.discard()
        for held in self._held_chunks:
            self._held_chunks.give_back(held)
