"""A job whose plan can no longer be read: its lines cannot be run, so it is soon failed."""

import structlog

from storage.database.tables import Chunk
from storage.jobs.reconcile import stop_broken_job
from worker.context import WorkerContext

log = structlog.get_logger(__name__)

PLAN_TRIES = 3  # attempts at a chunk: a folder that is not mounted yet gets some time
MESSAGE = "The plan of this batch was lost, so the batch cannot be finished. Create it again."


def give_up_plan(worker: WorkerContext, chunk: Chunk, reason: str) -> None:
    """Note that a chunk's plan is missing or broken; at the last try this stops its whole job.

    Raises:
        StorageError: the database failed.
    """
    last = chunk.attempt >= PLAN_TRIES
    log.error("plan_not_read", job=chunk.job_id, chunk=chunk.id, reason=reason, job_stopped=last)
    if last:
        error = {"code": "plan_lost", "message": MESSAGE, "param": None, "line": None}
        stop_broken_job(worker.database, chunk.job_id, [error])
