"""``/v1/batches/{id}/…``: cancel, pause, resume, and retry what failed."""

from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import APIRouter, BackgroundTasks

from api.auth import TenantDep
from api.batch_view import status_of
from api.context import Context, ContextDep
from api.errors import ApiError, no_such_batch
from api.ids import checked_id
from api.routes.batch_input import check_still_allowed
from api.routes.batches import IdempotencyKey, read_batch
from api.schemas.batch_create import fingerprint, parse_window
from api.schemas.batch_retry import BatchRetry
from api.schemas.batches import Batch
from storage.datasets.values.output_options import OUTPUT_KEY
from storage.errors import NotFound, StateConflict
from storage.jobs import jobs, retries
from storage.jobs.jobs import NewJob
from storage.jobs.retries import Retryable
from storage.wakeups import Wakeup

router = APIRouter(prefix="/batches/{batch_id}", tags=["Batches"])


@router.post("/cancel")
def cancel_batch(
    batch_id: str, context: ContextDep, tenant: TenantDep, background: BackgroundTasks
) -> Batch:
    """Cancel a batch. What is done by then stays; doing it twice is no error."""
    with _refusing(context, tenant, batch_id, "cancel", "batch_not_cancellable"):
        jobs.request_stop(context.database, tenant, checked_id(batch_id))
    background.add_task(context.wakeups.send, Wakeup.reconcile())
    return read_batch(context, tenant, batch_id)


@router.post("/pause")
def pause_batch(batch_id: str, context: ContextDep, tenant: TenantDep) -> Batch:
    """Start nothing more of a batch until it is resumed. What is running already runs to its end.

    The completion window goes on. Doing it twice is no error.
    """
    with _refusing(context, tenant, batch_id, "pause", "batch_not_pausable"):
        jobs.pause(context.database, tenant, checked_id(batch_id))
    return read_batch(context, tenant, batch_id)


@router.post("/resume")
def resume_batch(
    batch_id: str, context: ContextDep, tenant: TenantDep, background: BackgroundTasks
) -> Batch:
    """Go on with a paused batch; with one that is not paused, this is no error."""
    with _refusing(context, tenant, batch_id, "resume", "batch_not_resumable"):
        jobs.resume(context.database, tenant, checked_id(batch_id))
    background.add_task(context.wakeups.send, Wakeup.reconcile())
    return read_batch(context, tenant, batch_id)


@router.post("/retry")
def retry_batch(
    batch_id: str,
    context: ContextDep,
    tenant: TenantDep,
    background: BackgroundTasks,
    request: BatchRetry | None = None,
    idempotency_key: IdempotencyKey = None,
) -> Batch:
    """Run the failed lines of a batch that has ended, and no others, as a new batch.

    The new batch has the same input file and endpoint, and names the first in `tidemill.retry_of`.
    Its results are in its own files alone, even where the first one's were written elsewhere too.
    An ``Idempotency-Key`` works as it does for a new batch.
    """
    request = request or BatchRetry()
    idem_hash = None if idempotency_key is None else _fingerprint(request, batch_id)
    earlier = jobs.find_created(context.database, tenant, idempotency_key, idem_hash)
    if earlier is not None:
        return read_batch(context, tenant, earlier.id)
    with _refusing(context, tenant, batch_id, "retry", "batch_not_retryable"):
        first = retries.retry_source(context.database, tenant, checked_id(batch_id))
    check_still_allowed(context, tenant, first.job.options)
    created = jobs.create_job(
        context.database, _retry_of(first, request, idempotency_key, idem_hash)
    )
    if created.new:
        background.add_task(context.wakeups.send, Wakeup.plan(created.job.id))
    return read_batch(context, tenant, created.job.id)


def _fingerprint(request: BatchRetry, batch_id: str) -> str:
    # Null means no metadata; left out, it means the first batch's.
    kept = "metadata" not in request.model_fields_set
    return fingerprint(request, retry_of=batch_id, keeps_metadata=str(kept))


def _retry_of(
    first: Retryable, request: BatchRetry, idem_key: str | None, idem_hash: str | None
) -> NewJob:
    job = first.job
    window = request.completion_window or job.completion_window
    priority = request.tidemill.priority
    return NewJob(
        tenant_id=job.tenant_id,
        endpoint=job.endpoint,
        completion_window=window,
        window_seconds=parse_window(window),
        input_file=first.input_file,
        meta=request.metadata if "metadata" in request.model_fields_set else job.meta,
        # Its shards would be others than those that are there.
        options={key: value for key, value in job.options.items() if key != OUTPUT_KEY},
        priority=job.priority if priority is None else priority,
        output_expires_seconds=job.output_expires_seconds,
        idem_key=idem_key,
        idem_hash=idem_hash,
        retry_of=job.id,
    )


@contextmanager
def _refusing(context: Context, tenant: str, batch_id: str, verb: str, code: str) -> Iterator[None]:
    """Tell a client why something cannot be done to this batch (`ApiError` 404 or 400)."""
    try:
        yield
    except NotFound:
        raise no_such_batch(batch_id[:64]) from None
    except StateConflict:
        status = status_of(jobs.get(context.database, tenant, batch_id))
        raise ApiError(400, f"Cannot {verb} a batch with status '{status}'.", code=code) from None
