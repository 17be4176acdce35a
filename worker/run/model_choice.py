"""Whose turn it is on the engine, where a worker serves several models.

The most urgent model's: by the priority of the jobs that wait, then by their age. Loading a model
takes long, so the one that is loaded stays for as long as nothing more urgent waits.
"""

import time
from collections.abc import Collection

import structlog

from storage.errors import StorageError
from storage.jobs.waiting_models import WaitingModel, waiting_models
from worker.context import WorkerContext

log = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0


class ModelChoice:
    """Chooses the model of the next claim. For one thread.

    Attributes:
        model: the one whose turn it is, or was last.
        fresh: whether the last choice was made by a new look at the rows.
    """

    def __init__(self, worker: WorkerContext, models: Collection[str] | None) -> None:
        """``models`` are those to choose from; ``None`` is all."""
        self._worker = worker
        self._models = models
        self._waiting: list[WaitingModel] = []
        self._looked_at: float | None = None
        self.fresh = False
        self.model = worker.engines.model

    def next(self, *, switch: bool) -> str | None:
        """The model to claim a chunk of now, if any.

        ``switch`` says that the engine has nothing in hand, so that another model may follow.
        """
        waiting = [each for each in self._look() if not self._worker.engines.resting(each.name)]
        if not waiting:
            return None
        first = waiting[0]
        if any(w.name == self.model and w.priority >= first.priority for w in waiting):
            return self.model
        if not switch:
            return None  # what is in hand ends first
        self.model = first.name
        return first.name

    def look_again(self) -> None:
        """What was seen is over: look at the rows the next time."""
        self._looked_at = None

    def _look(self) -> list[WaitingModel]:
        now = time.monotonic()
        self.fresh = self._looked_at is None or now - self._looked_at > LOOK_SECONDS
        if self.fresh:
            try:
                self._waiting = waiting_models(
                    self._worker.database,
                    self._models,
                    max_crashes=self._worker.settings.worker.max_crashes,
                )
            except StorageError as error:
                log.warning("claim_failed", reason=error.code)
                self._waiting = []
            self._looked_at = now
        return self._waiting
