"""``/v1/batches``: create, list, read; `api.routes.lifecycle` has what is done to one."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Header, Query

from api.auth import TenantDep
from api.batch_view import batch_of, status_of
from api.context import Context, ContextDep
from api.errors import invalid_value, no_such_batch
from api.ids import checked_id
from api.routes.batch_input import input_of, no_input
from api.routes.batch_output import output_of, refused_output
from api.schemas.batch_create import BatchCreate, BatchOptions, fingerprint
from api.schemas.batches import Batch
from api.schemas.common import Page
from storage.errors import InputGone, NotFound, OutputError, StorageError
from storage.jobs import jobs
from storage.jobs.jobs import JobView
from storage.jobs.outputs.views import view_outputs
from storage.wakeups import Wakeup

IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=255)]

router = APIRouter(prefix="/batches", tags=["Batches"])


@router.post("")
def create_batch(
    request: BatchCreate,
    context: ContextDep,
    tenant: TenantDep,
    background: BackgroundTasks,
    idempotency_key: IdempotencyKey = None,
) -> Batch:
    """Create a batch. It is durable once the response is sent.

    With an ``Idempotency-Key``, the same request sent again gives the batch it made the first time,
    whatever became of the input since, and another request under the same key is refused.
    """
    idem_hash = None if idempotency_key is None else fingerprint(request)
    earlier = jobs.find_created(context.database, tenant, idempotency_key, idem_hash)
    if earlier is not None:
        return read_batch(context, tenant, earlier.id)
    output = output_of(context, tenant, request)
    given = input_of(context, tenant, request)
    new = jobs.NewJob(
        tenant_id=tenant,
        endpoint=request.endpoint,
        completion_window=request.completion_window,
        window_seconds=request.window_seconds,
        input_file=given.file,
        meta=request.metadata,
        options=_options(context, tenant, request.tidemill) | given.options | output,
        priority=request.tidemill.priority,
        output_expires_seconds=request.output_lifetime,
        idem_key=idempotency_key,
        idem_hash=idem_hash,
    )
    try:
        created = jobs.create_job(context.database, new)
    except InputGone:  # it was there a moment ago
        raise no_input(given.file.id) from None
    except StorageError as error:
        given.drop(context)
        if isinstance(error, OutputError):
            raise refused_output(error) from None
        raise
    if not created.new:  # a request with the same key has made it in between
        given.drop(context)
    if created.new:
        # After the commit and the response: a slow broker keeps no client waiting.
        background.add_task(context.wakeups.send, Wakeup.plan(created.job.id))
    return read_batch(context, tenant, created.job.id)


def _options(context: Context, tenant: str, asked: BatchOptions) -> dict[str, Any]:
    """What is kept of the options with the job, or `ApiError` 400."""
    options: dict[str, Any] = {"on_invalid": asked.on_invalid}
    if asked.estimate:
        options["estimate"] = True
    if asked.sample is not None:
        options["sample"] = _check_sample(context, tenant, asked.sample)
    return options


def _check_sample(context: Context, tenant: str, batch_id: str) -> str:
    """The id of a batch from whose answers an estimate can learn, or `ApiError` 400."""
    try:
        job = jobs.get(context.database, tenant, checked_id(batch_id))
    except NotFound:
        raise invalid_value(
            f"No such batch: {batch_id[:64]}", "tidemill.sample", "batch_not_found"
        ) from None
    if job.out_file_id is None:
        raise invalid_value(
            f"The batch {job.id} has no answers to learn from; it is {status_of(job)}.",
            "tidemill.sample",
            "sample_without_answers",
        )
    return job.id


@router.get("")
def list_batches(
    context: ContextDep,
    tenant: TenantDep,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Page[Batch]:
    """List batches, newest first."""
    try:
        mark = None if after is None else checked_id(after)
        page = jobs.list_jobs(context.database, tenant, after=mark, limit=limit)
    except NotFound:
        raise invalid_value(
            f"There is no batch '{(after or '')[:64]}' to list after.", "after"
        ) from None
    return Page[Batch].of(_batches(context, page.items), page.has_more)


@router.get("/{batch_id}")
def get_batch(batch_id: str, context: ContextDep, tenant: TenantDep) -> Batch:
    """Read a batch."""
    return read_batch(context, tenant, batch_id)


def read_batch(context: Context, tenant: str, batch_id: str) -> Batch:
    """The tenant's batch, or `ApiError` 404."""
    try:
        found = jobs.view(context.database, tenant, checked_id(batch_id))
    except NotFound:
        raise no_such_batch(batch_id[:64]) from None
    return _batches(context, [found])[0]


def _batches(context: Context, found: Sequence[JobView]) -> list[Batch]:
    outputs = view_outputs(context.database, [each.job for each in found])
    return [batch_of(each, outputs.get(each.job.id)) for each in found]
