"""An engine that loads its model before a worker asks for it.

Loading takes longer than all else that a short job waits for, and needs nothing of the service. So
a command that knows the model starts the engine first, and opens the service meanwhile.
"""

import threading
from types import TracebackType
from typing import Self

from engine.config import EngineConfig
from engine.process.client import EngineProcess
from engine.process.launch import Launched
from storage.settings import EngineSettings
from worker.models.engines import Engine, engine_config, engine_process


class EarlyEngine:
    """Makes engines, as `Engines` wants them; the first may have been started long before.

    Use it as a context manager: at the end, an engine that nobody asked for is ended.
    """

    def __init__(self, settings: EngineSettings, launched: Launched | None = None) -> None:
        """``launched`` is a process for the first engine, whether or not that is begun here."""
        self._settings = settings
        self._launched = launched
        self._config: EngineConfig | None = None
        self._waiting: EngineProcess | None = None
        self._lock = threading.Lock()

    def begin(self, source: str) -> None:
        """Start an engine of this model, once, and wait for nothing.

        Raises:
            ConfigurationError: the engine's settings cannot be used.
            EngineDied: its process ended at once.
        """
        if self._config is not None:
            return
        self._config = engine_config(self._settings, source)
        hang_seconds = self._settings.engine_hang_seconds
        self._waiting = EngineProcess(
            self._config, hang_seconds=hang_seconds, launched=self._launched
        )
        self._waiting.spawn()

    def make(self, config: EngineConfig) -> Engine:
        """The engine that was begun, if it is of this configuration; else one not started yet."""
        with self._lock:
            waiting = self._waiting
            if waiting is not None and config == self._config:
                self._waiting = None
                return waiting
            launched, self._launched = self._launched, None
        if launched is not None and not launched.free:
            launched = None
        seconds = self._settings.engine_hang_seconds
        return engine_process(config, hang_seconds=seconds, launched=launched)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.close(timeout=0)
