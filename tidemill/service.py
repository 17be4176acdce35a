"""The whole service in this process: API, worker and reconciler, over one home folder."""

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from api.app import create_app
from api.auth import check_bind
from storage import models
from storage.database import Database
from storage.errors import ConfigurationError
from storage.home import Home
from storage.objects import open_store
from storage.settings import Settings
from storage.wakeups import Wakeups, celery_app
from tidemill.errors import StartFailed
from tidemill.server import ServerThread, listen, url_of
from worker.embedded import EmbeddedWorker

STOP_SECONDS = 20.0


class Service:
    """Everything that ``tidemill up`` runs. Use it as a context manager.

    With a broker of its own the service has workers of its own, so only the API runs here.

    Args:
        announce: tell other commands on the same home folder where to find this service.

    Attributes:
        url: where it listens; the API is under ``/v1``.

    Raises:
        ConfigurationError: the address is open to other machines and no API key is set; or the
            database is a shared one and the broker is not.
        HomeInUse: another process uses the home folder.
        PortInUse, CannotListen: the address cannot be had.
    """

    def __init__(self, settings: Settings, *, announce: bool = True) -> None:
        self.settings = settings
        self._announce = announce
        self.url = ""
        self._worker: EmbeddedWorker | None = None
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

    def _start(self) -> None:
        settings, stack = self.settings, self._stack
        check_bind(settings.host, settings)
        _check_broker(settings)
        home = stack.enter_context(Home.lock(settings.home))
        listener = stack.enter_context(listen(settings.host, settings.port))
        self.url = url_of(listener)
        database = Database(settings.resolved_database_url)
        stack.callback(database.close)
        database.migrate()
        models.ensure_default(database, settings.default_model)
        store = open_store(settings)
        wakeups = Wakeups(celery_app(settings))
        if settings.embedded:
            self._worker = EmbeddedWorker(settings)
            stack.callback(self._worker.stop, STOP_SECONDS)
            self._worker.start()
        app = create_app(settings, database=database, store=store, wakeups=wakeups)
        stack.enter_context(ServerThread(app, listener))
        if self._announce:
            home.announce(self.url)


def _check_broker(settings: Settings) -> None:
    # Wake-ups of the in-memory broker reach this process alone, and the home's lock guards only it.
    if settings.embedded and not settings.resolved_database_url.startswith("sqlite"):
        raise ConfigurationError(
            "TIDEMILL_DATABASE_URL names a database that several processes can share, which needs "
            "a broker that they share too: set TIDEMILL_BROKER_URL, e.g. redis://localhost/0."
        )
