"""Notes for the owners of jobs that wait for a model.

They are no truth: where one cannot be written, work goes on.
"""

import structlog

from storage.errors import StorageError
from storage.jobs import waiting_models
from storage.jobs.waiting_models import Wait
from worker.context import WorkerContext
from worker.errors import ModelNotReady

log = structlog.get_logger(__name__)


def tell_wait(worker: WorkerContext, error: ModelNotReady) -> None:
    """Tell the jobs of a model why they wait."""
    try:
        waiting_models.note_wait(worker.database, Wait(error.reason, str(error), error.model))
    except StorageError as problem:
        log.warning("wait_not_noted", model=error.model, reason=problem.code)


def tell_running(worker: WorkerContext, model: str) -> None:
    """Tell the jobs of a model that they wait for it no more."""
    try:
        waiting_models.clear_wait(worker.database, model)
    except StorageError as problem:
        log.warning("wait_not_noted", model=model, reason=problem.code)
