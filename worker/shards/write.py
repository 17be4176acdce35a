"""Results in the caller's own place: shard by shard while the job runs, and its end."""

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

import structlog

from storage.database.states import JobState
from storage.database.tables import Shard
from storage.datasets.inputs.remote import stored
from storage.datasets.outputs.shards import write_shard
from storage.datasets.values.output_options import OutputFormat
from storage.datasets.values.sources import Kind, Limits, Source
from storage.errors import DatasetError, ObjectNotFound, StateConflict, StorageError
from storage.jobs.chunks import iter_chunks
from storage.jobs.outputs import leases
from storage.jobs.outputs.leases import NOT_WRITTEN, ClaimedOutput
from storage.jobs.outputs.views import written_shards
from worker.context import WorkerContext
from worker.errors import BrokenPlan, BrokenResult, LeaseLost, OutputUnwritable, Stopping
from worker.finish.settled import SETTLED, merged_records
from worker.lease import Lease, Renewal
from worker.shards.manifest import INCOMPLETE, SUCCESS, write_manifest
from worker.shards.places import Place

log = structlog.get_logger(__name__)

MAX_ATTEMPTS = 5
RETRY_SECONDS = 5.0
LONGEST_RETRY_SECONDS = 60.0
_BROKEN = (BrokenPlan, BrokenResult, DatasetError, ObjectNotFound)
_NO_LIMITS = Limits(sys.maxsize, sys.maxsize)


def write_output(worker: WorkerContext) -> bool:
    """Write the next shard of one output, or end one; returns whether anything was due."""
    since = time.monotonic()
    lease_seconds = worker.settings.worker.lease_seconds
    claimed = leases.claim_output(worker.database, worker.owner, lease_seconds=lease_seconds)
    if claimed is None:
        return False
    job_id, epoch = claimed.job.id, claimed.epoch
    if claimed.output.attempts > MAX_ATTEMPTS:
        _give_up(worker, claimed, "The results could not be put together.")
        return True

    def renew() -> Renewal:
        renewed = leases.renew_output(worker.database, job_id, epoch, lease_seconds=lease_seconds)
        return Renewal(renewed.still_mine)

    with worker.kept_lease(f"output of {job_id}", renew, since) as lease:
        try:
            _settle(worker, claimed, lease)
        except (LeaseLost, StateConflict):
            log.warning("output_abandoned", job=job_id, epoch=epoch)
        except Stopping:
            leases.release_output(worker.database, job_id, epoch)
        except _BROKEN as error:
            # The lease runs out, and it is tried again: some times.
            log.error("output_broken", job=job_id, code=error.code, reason=str(error))
        except StorageError as error:
            log.warning("output_postponed", job=job_id, code=error.code, reason=str(error))
            leases.release_output(worker.database, job_id, epoch, delay=RETRY_SECONDS)
    return True


def _settle(worker: WorkerContext, claimed: ClaimedOutput, lease: Lease) -> None:
    try:
        _go_on(worker, claimed, lease)
    except OutputUnwritable as error:
        lease.check()
        _postpone(worker, claimed, str(error))


def _go_on(worker: WorkerContext, claimed: ClaimedOutput, lease: Lease) -> None:
    place = Place.of(worker.settings, claimed.job, claimed.output)
    if claimed.shard is None:
        _end(worker, claimed, place)
        return
    _write(worker, claimed, claimed.shard, place, lease)
    write_manifest(worker.database, place, claimed.output)
    leases.release_output(worker.database, claimed.job.id, claimed.epoch)


def _write(
    worker: WorkerContext, claimed: ClaimedOutput, shard: Shard, place: Place, lease: Lease
) -> None:
    since, job = time.monotonic(), claimed.job
    kind = OutputFormat(claimed.output.format)
    name = f"part-{shard.number:05}.{kind.value}"
    content = stored(worker.store, shard.rows_key)
    rows = Source(content, shard.rows_key, Kind.PARQUET, limits=_NO_LIMITS)
    with place.writer(name) as writer:
        count = write_shard(rows, _results(worker, claimed, shard, lease), kind, writer)
        if count != shard.n_rows:
            raise BrokenResult(f"{name} of {job.id} has {count} rows of {shard.n_rows}.")
        lease.check()
    size, sha256 = writer.size, writer.sha256
    leases.settle_shard(
        worker.database, job.id, claimed.epoch, shard.number, file=name, size=size, sha256=sha256
    )
    seconds = round(time.monotonic() - since, 3)
    log.info("shard_written", job=job.id, file=name, rows=count, bytes=size, seconds=seconds)


def _results(
    worker: WorkerContext, claimed: ClaimedOutput, shard: Shard, lease: Lease
) -> Iterator[bytes]:
    heartbeat: Callable[[], None] = worker.heartbeat(lease)
    lines = (shard.first_line, shard.last_line)
    chunks = partial(iter_chunks, worker.database, claimed.job.id, SETTLED, lines=lines)
    for record in merged_records(worker, claimed.job, chunks):
        heartbeat()
        yield bytes(record.text)


def _end(worker: WorkerContext, claimed: ClaimedOutput, place: Place) -> None:
    """The job is terminal: the manifest says how it has ended, if no shard is missing."""
    job, shards, _ = written_shards(worker.database, claimed.job.id)
    rows = sum(shard.n_rows for shard in shards)
    if job.state == JobState.COMPLETED and rows != job.n_lines:
        _give_up(worker, claimed, "The batch ended without all of its shards.")
        return
    write_manifest(worker.database, place, claimed.output)
    if claimed.job.state == JobState.COMPLETED:
        place.put(SUCCESS, b"")
    place.tidy()
    leases.close_output(worker.database, claimed.job.id, claimed.epoch)
    log.info("output_closed", job=claimed.job.id, state=claimed.job.state)


def _postpone(worker: WorkerContext, claimed: ClaimedOutput, reason: str) -> None:
    failing = leases.seconds_failing(worker.database, claimed)
    log.warning("output_postponed", job=claimed.job.id, code=NOT_WRITTEN, reason=reason)
    if failing >= worker.settings.worker.output_wait_seconds:
        _give_up(worker, claimed, reason)
        return
    delay = min(max(RETRY_SECONDS, failing / 2), LONGEST_RETRY_SECONDS)
    problem = {"code": NOT_WRITTEN, "message": f"{reason} It is tried again."}
    leases.postpone_output(worker.database, claimed.job.id, claimed.epoch, problem, delay=delay)


def _give_up(worker: WorkerContext, claimed: ClaimedOutput, reason: str) -> None:
    message = (
        f"{reason} The shards that the manifest does not list are missing; their rows are in the "
        "batch's own result files."
    )
    problem = {"code": NOT_WRITTEN, "message": message, "param": None, "line": None}
    if not leases.give_up_output(worker.database, claimed.job.id, claimed.epoch, problem):
        log.warning("output_abandoned", job=claimed.job.id, epoch=claimed.epoch)
        return
    log.error("output_given_up", job=claimed.job.id, reason=reason)
    try:
        place = Place.of(worker.settings, claimed.job, claimed.output)
        write_manifest(worker.database, place, claimed.output, INCOMPLETE)
        place.tidy()
    except (OutputUnwritable, StorageError) as error:
        log.warning("manifest_not_written", job=claimed.job.id, reason=str(error))
