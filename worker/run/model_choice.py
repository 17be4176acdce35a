"""Which model the engine runs next, where a worker serves several.

It is the most urgent one: by the priority of the jobs that wait, then by their age. Loading a model
takes long, so the loaded one stays while no job of a higher priority waits for another.
"""

import time
from collections.abc import Collection

import structlog

from storage.errors import StorageError
from storage.jobs.waiting_models import WaitingModel, waiting_models
from worker.context import WorkerContext
from worker.run.waiting import tell_wait

log = structlog.get_logger(__name__)

MAX_AGE_SECONDS = 1.0  # of what was read of the waiting jobs


class ModelChoice:
    """Chooses the model of the next claim. For one thread.

    Attributes:
        model: the one that was chosen last.
        fresh: whether the last choice read the database anew.
    """

    def __init__(self, worker: WorkerContext, models: Collection[str] | None) -> None:
        """``models`` are those to choose from; ``None`` is all."""
        self._worker = worker
        self._models = models
        self._waiting: list[WaitingModel] = []
        self._read_at: float | None = None
        self.fresh = False
        self.model = worker.engines.model

    def next(self, *, switch: bool) -> str | None:
        """The model to claim a chunk of now, if any.

        ``switch`` says that the engine has no request left, so that another model may be loaded.
        """
        waiting = [each for each in self._read() if not self._rests(each)]
        if not waiting:
            return None
        first = waiting[0]
        if any(each.name == self.model and each.priority >= first.priority for each in waiting):
            return self.model
        if not switch:
            return None  # the loaded model's requests end first
        self.model = first.name
        return first.name

    def _rests(self, waiting: WaitingModel) -> bool:
        """Whether the model's engine did not start a moment ago; its jobs are told why."""
        error = self._worker.engines.resting(waiting.name)
        if error is not None and self.fresh and waiting.unnoted:
            tell_wait(self._worker, error)
        return error is not None

    def refresh(self) -> None:
        """Read the database anew at the next choice."""
        self._read_at = None

    def _read(self) -> list[WaitingModel]:
        now = time.monotonic()
        self.fresh = self._read_at is None or now - self._read_at > MAX_AGE_SECONDS
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
            self._read_at = now
        return self._waiting
