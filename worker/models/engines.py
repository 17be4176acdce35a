"""The engine process that stays resident between jobs.

There is one engine at a time, because a machine has memory for one: work on another model ends it.
A model whose engine does not start is not tried again for a while, longer each time, and the reason
is kept (`Engines.failure`).
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import structlog

from engine.config import EngineConfig
from engine.errors import EngineError, InvalidConfig
from engine.info import EngineInfo
from engine.requests import Completion, EngineStats, Request
from storage.errors import ConfigurationError
from storage.settings import EngineSettings, variable
from worker.errors import EngineUnavailable

if TYPE_CHECKING:
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
    """Why a model's engine did not start, and when it may be tried again (monotonic seconds)."""

    error: EngineError
    until: float
    pause: float


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


def engine_process(config: EngineConfig, *, hang_seconds: float) -> Engine:
    """A real engine in a process of its own, not started yet."""
    from engine.process import EngineProcess

    return EngineProcess(config, hang_seconds=hang_seconds)


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
        self._model: str | None = None
        self._starting: Engine | None = None
        self._failures: dict[str, Failure] = {}
        self._closed = False

    def another(self, device: str) -> "Engines":
        """Engines like these on one device, kept apart from these."""
        settings = self._settings.model_copy(update={"device": device})
        return Engines(settings, self._make, self._metrics)

    def failure(self, model: str) -> EngineError | None:
        """Why the model's engine did not start at the last try, if it did not."""
        found = self._failures.get(model)
        return found.error if found else None

    @property
    def failures(self) -> dict[str, EngineError]:
        """Every model whose engine did not start at its last try, and why."""
        return {model: found.error for model, found in self._failures.items()}

    @property
    def model(self) -> str | None:
        """The model that an engine was last asked for, if any was."""
        return self._model

    def resting(self, model: str) -> bool:
        """Whether the model's engine did not start a moment ago and is not to be tried yet."""
        found = self._failures.get(model)
        return found is not None and time.monotonic() < found.until

    def get(self, model: str, source: str) -> Resident:
        """The running engine of this model, started now if need be.

        Raises:
            EngineUnavailable: it did not start.
        """
        self._model = model
        resident = self._resident
        if resident is not None and resident.source == source and resident.engine.alive:
            return resident
        self.discard()
        engine = self._make(engine_config(self._settings, source))
        with self._lock:
            if self._closed:
                raise EngineUnavailable("The worker is stopping.")
            self._starting = engine
        log.info("engine_starting", model=model, source=source)
        try:
            info = engine.start()
        except EngineError as error:
            self._failed(model, error)
            raise EngineUnavailable(str(error)) from error
        finally:
            with self._lock:
                self._starting = None
        self._failures.pop(model, None)
        self._metrics.engine_started(model, ok=True)
        self._resident = Resident(source, engine, info)
        log.info("engine_ready", model=model, pid=engine.pid, engine=info.description)
        return self._resident

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

    def _failed(self, model: str, error: EngineError) -> None:
        if self._closed:
            return
        self._metrics.engine_started(model, ok=False)
        before = self._failures.get(model)
        pause = min(before.pause * 2, LONGEST_PAUSE_SECONDS) if before else FIRST_PAUSE_SECONDS
        self._failures[model] = Failure(error, time.monotonic() + pause, pause)
        log.error(
            "engine_not_started",
            model=model,
            code=error.code,
            reason=str(error),
            log_tail=getattr(error, "log_tail", ""),
            next_try_seconds=pause,
        )
