"""Notes for the owners of jobs that wait for a model.

They are no truth: where one cannot be written, work goes on.
"""

import structlog

from storage.errors import StorageError
from storage.jobs import waits
from storage.jobs.waits import Wait
from worker.context import WorkerContext
from worker.errors import ModelNotReady

log = structlog.get_logger(__name__)


def note_wait(worker: WorkerContext, error: ModelNotReady) -> None:
    """Tell the jobs of a model why they wait."""
    try:
        waits.note(worker.database, Wait(error.reason, str(error), error.model))
    except StorageError as problem:
        log.warning("wait_not_noted", model=error.model, reason=problem.code)


def clear_wait(worker: WorkerContext, model: str) -> None:
    """Tell the jobs of a model that they wait for it no more."""
    try:
        waits.clear(worker.database, model)
    except StorageError as problem:
        log.warning("wait_not_noted", model=model, reason=problem.code)
