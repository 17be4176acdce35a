"""The engine process that stays resident between jobs.

There is one engine at a time, because a machine has memory for one: work on another model ends it.
A model whose engine does not start is not tried again while its files stay as they are: never if
they are at fault, and otherwise for a while, longer each time.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import structlog

from engine.catalog import FilesState, files_state
from engine.config import EngineConfig
from engine.errors import EngineError, InvalidConfig
from engine.info import EngineInfo
from engine.requests import Completion, EngineStats, Request
from storage.errors import ConfigurationError
from storage.settings import EngineSettings, variable
from worker.errors import ModelNotReady, Stopping
from worker.models.faults import lasting, model_error

if TYPE_CHECKING:
    from engine.process.launch import Launched
    from worker.metrics import WorkerMetrics

log = structlog.get_logger(__name__)

FIRST_PAUSE_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 300.0
CLOSE_SECONDS = 3.0


class Engine(Protocol):
    """What the drain loop needs of `engine.EngineProcess`."""

    def start(self, timeout: float = 300.0) -> EngineInfo: ...

    def submit(self, requests: Sequence[Request]) -> None: ...

    def cancel(self, request_ids: Iterable[str]) -> None: ...

    def flush(self) -> None: ...

    def poll(self, timeout: float) -> list[Completion]: ...

    def stats(self) -> EngineStats: ...

    @property
    def alive(self) -> bool: ...

    @property
    def pid(self) -> int | None: ...

    def close(self, timeout: float = 10.0) -> None: ...


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a model's engine did not start.

    Attributes:
        source, files: what was tried, and the state that its files were in.
        until: if the fault may pass, when it may be tried again (monotonic seconds).
    """

    error: EngineError
    source: str
    files: FilesState
    until: float
    pause: float

    @property
    def stands(self) -> bool:
        """Whether another try would come to nothing, so far as is known."""
        if files_state(self.source) != self.files:
            return False
        return lasting(self.error) or time.monotonic() < self.until


@dataclass(frozen=True, slots=True)
class Resident:
    """A running engine, and what it reported of itself."""

    source: str
    engine: Engine
    info: EngineInfo


def engine_config(settings: EngineSettings, source: str) -> EngineConfig:
    """The engine's configuration for a model's source.

    Raises:
        ConfigurationError: the engine does not know a setting's value; names its variable.
    """
    values = settings.model_dump(exclude={"engine_hang_seconds"})
    try:
        return EngineConfig(model=source, **values)
    except InvalidConfig as error:
        prefix = f"{variable(error.field)}: " if error.field else ""
        raise ConfigurationError(f"{prefix}{error}") from error


def check_engine_settings(settings: EngineSettings) -> None:
    """Refuse settings that no engine can be made from: called at a worker's start.

    Raises:
        ConfigurationError: as `engine_config`.
    """
    engine_config(settings, source="")


def engine_process(
    config: EngineConfig, *, hang_seconds: float, launched: "Launched | None" = None
) -> Engine:
    """A real engine in a process of its own, not started yet.

    The model's files are looked at first: for a model that cannot be loaded no other must go.
    ``launched`` is a process for it, if there is one already.

    Raises:
        EngineError: as `check_model`.
    """
    from engine.models.check import check_model
    from engine.process.client import EngineProcess

    check_model(config.model)
    return EngineProcess(config, hang_seconds=hang_seconds, launched=launched)


class Engines:
    """Starts, keeps and replaces the engine. For the drain loop; any thread may `close` it."""

    def __init__(
        self,
        settings: EngineSettings,
        make: Callable[[EngineConfig], Engine] | None = None,
        metrics: "WorkerMetrics | None" = None,
    ) -> None:
        """``make`` makes an engine that is not started yet; by default a process of its own."""
        if metrics is None:
            # Imported here: an engine can then be begun before the database is loaded.
            from worker.metrics import WorkerMetrics

            metrics = WorkerMetrics()
        self._settings = settings
        hang_seconds = settings.engine_hang_seconds
        self._make = make or partial(engine_process, hang_seconds=hang_seconds)
        self._metrics = metrics
        self._lock = threading.Lock()
        self._resident: Resident | None = None
        self._others: list[Engines] = []
        self._model: str | None = None
        self._starting: Engine | None = None
        self._failures: dict[str, Failure] = {}
        self._closed = False

    def another(self, device: str) -> "Engines":
        """Engines like these on one device, kept apart from these."""
        settings = self._settings.model_copy(update={"device": device})
        other = Engines(settings, self._make, self._metrics)
        self._others.append(other)
        return other

    def failure(self, model: str) -> EngineError | None:
        """Why the model's engine did not start at the last try, if it did not."""
        found = self._failures.get(model)
        return found.error if found else None

    @property
    def failures(self) -> dict[str, EngineError]:
        """The models that wait for their engine to start, and why it did not at the last try."""
        return {
            model: found.error
            for model, found in list(self._failures.items())
            if not lasting(found.error)
        }

    @property
    def resident(self) -> Resident | None:
        """The engine that runs, if one does."""
        return self._resident

    def running(self, source: str) -> Resident | None:
        """An engine of these, or of those that were made from these, that runs this model."""
        found = (engines.resident for engines in (self, *self._others))
        return next((each for each in found if each is not None and each.source == source), None)

    @property
    def model(self) -> str | None:
        """The model that an engine was last asked for, if any was."""
        return self._model

    def resting(self, model: str) -> ModelNotReady | None:
        """Why the model's engine did not start a moment ago, if it is not to be tried yet.

        It is then left alone. One whose files are at fault is not: its lines are to end.
        """
        found = self._failures.get(model)
        if found is None or lasting(found.error) or not found.stands:
            return None
        error = model_error(model, found.source, found.error)
        return error if isinstance(error, ModelNotReady) else None

    def get(self, model: str, source: str) -> Resident:
        """The running engine of this model, started now if need be.

        Raises:
            ModelUnavailable: the model's files are at fault; an engine of another model stays.
            ModelNotReady: it did not start, for a reason that may pass.
            Stopping: the worker is stopping.
        """
        known = self._failures.get(model)
        if known and known.source == source and lasting(known.error) and known.stands:
            raise model_error(model, source, known.error)
        self._model = model
        resident = self._resident
        if resident is not None and resident.source == source and resident.engine.alive:
            return resident
        files = files_state(source)
        try:
            engine, info = self._start(model, source)
        except EngineError as error:
            if self._closed:
                raise Stopping from error
            self._failed(model, source, files, error)
            raise model_error(model, source, error) from error
        self._failures.pop(model, None)
        self._metrics.engine_started(model, ok=True)
        self._resident = Resident(source, engine, info)
        log.info("engine_ready", model=model, pid=engine.pid, engine=info.description)
        return self._resident

    def _start(self, model: str, source: str) -> tuple[Engine, EngineInfo]:
        engine = self._make(engine_config(self._settings, source))
        self.discard()
        with self._lock:
            closed = self._closed
            self._starting = None if closed else engine
        if closed:
            engine.close(timeout=0)
            raise Stopping
        log.info("engine_starting", model=model, source=source)
        try:
            return engine, engine.start()
        finally:
            with self._lock:
                self._starting = None

    def discard(self) -> None:
        """End the resident engine, if there is one; requests that it still runs are lost."""
        resident, self._resident = self._resident, None
        if resident is not None:
            resident.engine.close(CLOSE_SECONDS)
            log.info("engine_closed", source=resident.source)

    def interrupt(self) -> None:
        """End an engine that is still starting, and start no other."""
        with self._lock:
            self._closed = True
            starting = self._starting
        if starting is not None:
            starting.close(timeout=0)

    def close(self) -> None:
        """End every engine, and start no other."""
        self.interrupt()
        self.discard()

    def _failed(self, model: str, source: str, files: FilesState, error: EngineError) -> None:
        self._metrics.engine_started(model, ok=False)
        before = self._failures.get(model)
        pause = min(before.pause * 2, LONGEST_PAUSE_SECONDS) if before else FIRST_PAUSE_SECONDS
        until = time.monotonic() + pause
        self._failures[model] = Failure(error, source, files, until, pause)
        log.error(
            "engine_not_started",
            model=model,
            code=error.code,
            reason=str(error),
            log_tail=getattr(error, "log_tail", ""),
            next_try_seconds=None if lasting(error) else pause,
        )
