"""The service in this process: all of it, or the API alone."""

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from prometheus_client.registry import Collector

from api.app import create_app
from api.auth import check_bind
from api.metrics import RequestMetrics
from engine.config import EngineConfig
from storage.broker import open_wakeups
from storage.database.startup import bring_up
from storage.errors import ConfigurationError
from storage.home import Home
from storage.probes import probe_at_start
from storage.registry import models
from storage.settings import Settings, StorageSettings
from storage.stores import Stores
from storage.wakeups import LocalWakeups
from tidemill.errors import StartFailed
from tidemill.serve.metrics import serve_metrics
from tidemill.serve.server import ServerThread, listen, url_of
from worker.metrics import BacklogCollector
from worker.models.engines import Engine, check_engine_settings
from worker.process.embedded import EmbeddedWorker


class Service:
    """What ``tidemill up`` and ``tidemill api`` run. Use it as a context manager.

    With a broker of its own the service has workers of its own, so only the API runs here.

    Args:
        announce: tell other commands on the same home folder where to find this service.
        shared: run the API alone, and leave the home folder to whoever holds it.
        stop: once set, waiting for the database is given up.
        make_engine: makes the worker's engines; by default each is a process of its own.

    Attributes:
        url: where it listens; the API is under ``/v1``.

    Raises:
        ConfigurationError: the address is open to other machines and no API key is set; or the
            database is a shared one and the broker is not.
        DatabaseUnavailable: it did not answer in time.
        HomeInUse: another process uses the home folder.
        PortInUse, CannotListen: the address cannot be had.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        announce: bool = True,
        shared: bool = False,
        stop: threading.Event | None = None,
        make_engine: Callable[[EngineConfig], Engine] | None = None,
    ) -> None:
        self.settings = settings
        self._announce = announce
        self._shared = shared
        self._stop = stop
        self._make_engine = make_engine
        self.url = ""
        self._worker: EmbeddedWorker | None = None
        self._jobs_seen = 0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with self._stack:
            self._start()
            # Started whole: what the stack holds is now undone by `__exit__` alone.
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def check_engine(self, model: str | None) -> None:
        """Raise where jobs would wait in vain, because a model's engine does not start.

        Args:
            model: the model to ask about; ``None`` is any.

        Raises:
            StartFailed: with the engine's own reason.
        """
        failures = self._worker.failures if self._worker else {}
        for name, error in failures.items():
            if model in (None, name):
                raise StartFailed(f"The engine of {name} does not start: {error}")

    def pause(self, seconds: float) -> None:
        """Wait so many seconds, or until a job was planned or finalized here, or cannot run."""
        if self._worker is None:
            time.sleep(seconds)
        else:
            self._jobs_seen = self._worker.job_done.wait(self._jobs_seen, seconds)

    def _start(self) -> None:
        settings, stack = self.settings, self._stack
        check_bind(settings.api.host, settings.api)
        home: Home | None = None
        if self._shared:
            check_shared(settings.storage, "api")
        else:
            _check_broker(settings.storage)
            if settings.storage.embedded:
                check_engine_settings(settings.engine)
            home = stack.enter_context(Home.lock(settings.storage.home))
        listener = stack.enter_context(listen(settings.api.host, settings.api.port))
        self.url = url_of(listener)
        stores = stack.enter_context(Stores.open(settings.storage))
        wait = settings.storage.start_timeout_seconds
        if not bring_up(stores.database, seconds=wait, stop=self._stop):
            raise SystemExit(0)  # told to stop before it could begin
        models.ensure_default(stores.database, settings.worker.default_model)
        probe_at_start(settings.storage, stores, self._stop)
        wakeups = open_wakeups(settings.storage)
        if isinstance(wakeups, LocalWakeups):
            make = self._make_engine
            self._worker = EmbeddedWorker(settings, stores, wakeups, make_engine=make)
            stack.callback(self._worker.stop)
            self._worker.start()
        metrics = RequestMetrics()
        collectors: list[Collector] = [metrics.registry, BacklogCollector(stores.database)]
        if self._worker is not None:
            collectors.append(self._worker.metrics)
        app = create_app(settings.api, stores=stores, wakeups=wakeups, metrics=metrics)
        server = stack.enter_context(ServerThread(app, listener, settings.api))
        process = settings.process
        hosts = settings.api.extra_hosts
        served = serve_metrics(
            process.metrics_host, process.metrics_port, collectors, allowed_hosts=hosts
        )
        stack.enter_context(served)
        # So that both stop at the same time.
        stack.callback(server.begin_stop)
        if self._worker is not None:
            stack.callback(self._worker.begin_stop)
        if home is not None and self._announce:
            home.announce(self.url)


def _check_broker(settings: StorageSettings) -> None:
    # Without a broker wake-ups reach this process alone, and the home's lock guards only it.
    if settings.embedded and not settings.resolved_database_url.startswith("sqlite"):
        raise ConfigurationError(
            "TIDEMILL_DATABASE_URL names a database that several processes can share, which needs "
            "a broker that they share too: set TIDEMILL_BROKER_URL, e.g. redis://localhost/0."
        )
    if not settings.embedded and not settings.database_url:
        raise ConfigurationError(
            "TIDEMILL_BROKER_URL is set, so the work is done by workers of their own, which need a "
            "database that they share: set TIDEMILL_DATABASE_URL, or leave the broker out."
        )


def check_shared(settings: StorageSettings, command: str) -> None:
    """Refuse settings that the service's other processes cannot share.

    Raises:
        ConfigurationError: naming every variable to set.
    """
    missing = []
    if settings.embedded:
        missing.append("TIDEMILL_BROKER_URL (e.g. redis://localhost/0)")
    if not settings.database_url or settings.database_in_home:
        missing.append("TIDEMILL_DATABASE_URL (e.g. postgresql://user:password@localhost/tidemill)")
    if missing:
        raise ConfigurationError(
            f"'tidemill {command}' is one part of several, which share a database and a broker: "
            f"set {' and '.join(missing)}. For everything in one process use 'tidemill up'."
        )
