"""The end of a job: its parts are merged into the output and the error file, in input order.

A job that was stopped before it was planned has no parts: its input is read once more, and every
line of it gets an error (`worker.finish.unplanned`).
"""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

import structlog

from storage.database.states import StopReason
from storage.database.tables import Chunk, Job
from storage.errors import CountsDiffer, StateConflict, StorageError
from storage.ids import new_id
from storage.jobs import finalizing
from storage.jobs.chunks import iter_chunks
from storage.jobs.finalizing import Results
from storage.jobs.planning import Refusal
from storage.objects import ObjectStore, ObjectWriter, object_keys
from storage.objects.object_keys import ResultKind
from storage.registry.files import NewFile
from worker.allowance import Allowance
from worker.context import WorkerContext
from worker.errors import BrokenPlan, BrokenResult, LeaseLost, Stopping, TakesLong
from worker.finish.settled import SETTLED, merged_records
from worker.finish.unplanned import unplanned_records
from worker.lease import Lease, Renewal
from worker.plan.planner import REFUSING, refused
from worker.run.parts import Record

log = structlog.get_logger(__name__)

MAX_ATTEMPTS = 3
RETRY_SECONDS = 5.0


def finalize_job(worker: WorkerContext, job_id: str, allowance: Allowance | None = None) -> bool:
    """Finalize a job, unless it is not due or another worker is finalizing it.

    Returns false where it was given back because it takes longer than ``allowance``.
    """
    since = time.monotonic()
    lease_seconds = worker.settings.worker.lease_seconds
    job = finalizing.claim_finalize(
        worker.database, worker.owner, lease_seconds=lease_seconds, job_id=job_id
    )
    if job is None:
        return True
    epoch = job.fin_epoch
    if job.cancel == StopReason.BROKEN:
        finalizing.fail_final(worker.database, job.id, epoch, job.errors or [])
        log.error("job_failed", job=job.id, reason=StopReason.BROKEN)
        return True
    if job.attempts > MAX_ATTEMPTS:
        _give_up(worker, job)
        return True

    def renew() -> Renewal:
        # A job that is cancelled while it is finalized is finalized all the same.
        renewed = finalizing.renew_finalize(
            worker.database, job_id, epoch, lease_seconds=lease_seconds
        )
        return Renewal(renewed.still_mine)

    with worker.kept_lease(f"results of {job_id}", renew, since) as lease:
        try:
            heartbeat = (allowance or Allowance()).around(worker.heartbeat(lease))
            _settle(worker, job, lease, heartbeat, since)
        except (LeaseLost, StateConflict):
            log.warning("finalize_abandoned", job=job_id, epoch=epoch)
        except Stopping:
            finalizing.release_finalize(worker.database, job_id, epoch)
        except TakesLong:
            finalizing.release_finalize(worker.database, job_id, epoch)
            log.info("finalize_takes_long", job=job_id, epoch=epoch)
            return False
        except (BrokenPlan, BrokenResult, CountsDiffer) as error:
            _broken(worker, job, str(error))
        except REFUSING as error:
            if _planned(job):
                _broken(worker, job, str(error))
            else:
                _refuse(worker, job, refused(error))
        except StorageError as error:
            log.warning("finalize_postponed", job=job_id, code=error.code, reason=str(error))
            finalizing.release_finalize(worker.database, job_id, epoch, delay=RETRY_SECONDS)
    return True


def _settle(
    worker: WorkerContext, job: Job, lease: Lease, heartbeat: Callable[[], None], since: float
) -> None:
    results = _Merger(worker, job, heartbeat).run()
    lease.check()
    ended = finalizing.commit_final(worker.database, job.id, job.fin_epoch, results)
    log.info(
        "job_ended",
        job=job.id,
        state=ended.state,
        ok=ended.n_ok,
        errors=ended.n_err,
        cancelled=ended.n_cancelled,
        prompt_tokens=ended.prompt_tokens,
        cached_tokens=ended.cached_tokens,
        completion_tokens=ended.completion_tokens,
        seconds=round(time.monotonic() - since, 3),
    )


def _planned(job: Job) -> bool:
    return job.in_progress_at is not None


def _refuse(worker: WorkerContext, job: Job, refusal: Refusal) -> None:
    """Fail a job as a whole, as its planner would have: its input has no lines to account for."""
    finalizing.fail_final(worker.database, job.id, job.fin_epoch, refusal.errors)
    log.info("job_failed", job=job.id, code=refusal.errors[0]["code"])


def _broken(worker: WorkerContext, job: Job, reason: str) -> None:
    """Log that the parts do not add up. Its lease runs out and it is tried again, or it fails."""
    log.error("results_broken", job=job.id, attempt=job.attempts, reason=reason)
    if job.attempts >= MAX_ATTEMPTS:
        _give_up(worker, job)


def _give_up(worker: WorkerContext, job: Job) -> None:
    message = "The results of this batch could not be put together."
    error = {"code": "internal_error", "message": message, "param": None, "line": None}
    finalizing.fail_final(worker.database, job.id, job.fin_epoch, [error])
    log.error("job_failed", job=job.id, attempts=job.attempts)


@dataclass
class _ResultFile:
    """An output or error file; it is created with its first line."""

    store: ObjectStore
    job: Job
    kind: ResultKind
    stack: ExitStack
    lines: int = 0
    _writer: ObjectWriter | None = None
    _object_key: str = field(init=False)

    def __post_init__(self) -> None:
        self._object_key = object_keys.result(self.job.id, self.job.fin_epoch, self.kind)

    def write(self, text: bytes) -> None:
        if self._writer is None:
            self._writer = self.stack.enter_context(self.store.writer(self._object_key))
        self._writer.write(text)
        self._writer.write(b"\n")
        self.lines += 1

    def row(self) -> NewFile | None:
        """The file's row, once the stack is closed; ``None`` where there was no line."""
        if self._writer is None:
            return None
        suffix = "output" if self.kind == "output" else "error"
        return NewFile(
            id=new_id("file"),
            tenant_id=self.job.tenant_id,
            purpose="batch_output",
            filename=f"{self.job.id}_{suffix}.jsonl",
            bytes=self._writer.size,
            object_key=self._object_key,
            etag=self._writer.info.etag,
            sha256=self._writer.sha256,
            expires_after=self.job.output_expires_seconds,
        )


@dataclass(frozen=True)
class _Merger:
    """Merges the parts of one job."""

    worker: WorkerContext
    job: Job
    heartbeat: Callable[[], None]

    def run(self) -> Results:
        """Write both files.

        Raises:
            BrokenResult: the parts do not hold every line exactly once.
        """
        with ExitStack() as stack:
            output = _ResultFile(self.worker.store, self.job, "output", stack)
            errors = _ResultFile(self.worker.store, self.job, "errors", stack)
            for record in stack.enter_context(closing(self._records())):
                self.heartbeat()
                (output if record.ok else errors).write(bytes(record.text))
            if _planned(self.job) and output.lines + errors.lines != self.job.n_lines:
                raise BrokenResult(
                    f"{output.lines} outputs and {errors.lines} errors were merged, of "
                    f"{self.job.n_lines} lines."
                )
        return Results(output.lines, errors.lines, output.row(), errors.row())

    def _records(self) -> Generator[Record]:
        if _planned(self.job):
            yield from merged_records(self.worker, self.job, self._chunks)
        else:
            yield from unplanned_records(self.worker, self.job, self.heartbeat)

    def _chunks(self) -> Iterator[Chunk]:
        return iter_chunks(self.worker.database, self.job.id, SETTLED)
