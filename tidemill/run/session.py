"""Which service a command talks to."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidemill.client.client import DEFAULT_URL, Client
from tidemill.errors import UsageError
from tidemill.run.checks import ModelNeeded, check_files, check_listed, check_model

if TYPE_CHECKING:
    from engine.config import EngineConfig
    from engine.process.launch import Launched
    from storage.settings import Settings
    from worker.models.engines import Engine


def settings_for(home: Path | None, **values: Any) -> "Settings":
    """The settings of the environment, with what the command line gave on top."""
    from pydantic import ValidationError

    from storage.errors import ConfigurationError
    from storage.settings import Settings, variable

    given = {name: value for name, value in {"home": home, **values}.items() if value is not None}
    try:
        return Settings.load(**given)
    except ValidationError as error:
        problem = error.errors()[0]
        name = variable("_".join(map(str, problem["loc"])))
        raise ConfigurationError(f"{name}: {problem['msg']}.") from error


def connect(url: str | None, api_key: str | None, home: Path | None) -> Client:
    """A client of the named service, else of the home folder's, else of port 8000."""
    if url is None:
        from storage.home import read_owner

        owner = read_owner(settings_for(home).storage.home)
        url = owner.url if owner and owner.url else DEFAULT_URL
    return Client(url, api_key)


@dataclass(frozen=True, slots=True)
class Session:
    """A service for one job.

    Attributes:
        home: the folder that holds what the service keeps.
        own: whether the service ends with this command, and nobody else uses it.
        check: raises where a job of this model would wait in vain.
        pause: waits so many seconds; where the service is this command's own, at most until a job
            was planned, has ended or cannot run.
    """

    client: Client
    home: Path
    own: bool = False
    check: Callable[[str | None], None] = lambda model: None
    pause: Callable[[float], None] = time.sleep


@contextmanager
def own_service(
    home: Path | None,
    api_key: str | None,
    needed: ModelNeeded | None = None,
    launched: "Launched | None" = None,
    shown_every: float = 0.0,
) -> Iterator[Session]:
    """A service that lives as long as this command.

    Where another process serves the home folder already, that one is used.

    Args:
        needed: the model without which nothing is to be started.
        launched: a process for the engine; where none is needed, it is ended.
        shown_every: seconds between two looks at how far the job is.

    Raises:
        UsageError: the model cannot be used.
        UsageError: the settings name a broker, so the work is done by workers elsewhere.
    """
    from storage.home import read_owner
    from tidemill.serve.logs import start_logs

    settings = settings_for(
        home,
        host="127.0.0.1",
        port=0,
        log_level=quiet_level(),
        model_wait_seconds=0.0,  # nobody will bring its files
        renew_seconds=renew_seconds(shown_every),
    )
    start_logs(settings)
    if not settings.storage.embedded:
        raise UsageError(
            "TIDEMILL_BROKER_URL names a broker, so the work is done by workers of their own: "
            "use 'tidemill submit' with the service's --url, or leave the broker out."
        )
    owner = read_owner(settings.storage.home)
    if owner is not None and owner.url:
        if launched is not None:
            launched.close()
        with Client(owner.url, api_key) as client:
            if needed is not None and needed.name is not None:
                check_listed(needed.name, [model.id for model in client.models()])
            yield Session(client, settings.storage.home)
        return
    with ExitStack() as stack:
        make_engine = stack.enter_context(_started_early(settings, needed, launched))
        from tidemill.serve.service import Service

        key = api_key or next(iter(settings.api.keys_by_secret), None)
        # Not announced: whoever joined would lose the service when this command ends.
        service = Service(settings, announce=False, make_engine=make_engine)
        stack.enter_context(service)
        client = stack.enter_context(Client(service.url, key))
        yield Session(
            client,
            settings.storage.home,
            own=True,
            check=service.check_engine,
            pause=service.pause,
        )


@contextmanager
def _started_early(
    settings: "Settings", needed: ModelNeeded | None, launched: "Launched | None"
) -> Iterator["Callable[[EngineConfig], Engine]"]:
    """Begin to load the model that is needed; gives what makes the worker's engines.

    Raises:
        UsageError: the model cannot be used.
    """
    from engine.catalog import BUILTIN
    from worker.models.devices import engine_devices
    from worker.models.early import EarlyEngine

    with EarlyEngine(settings.engine, launched) as early:
        alone = len(engine_devices(settings.engine.device)) == 1
        name = (needed and needed.name) or settings.worker.default_model
        # A model that comes with a package is found by its name, before the database is looked at.
        if alone and needed is not None and name in BUILTIN:
            check_files(name, name, needed.max_tokens)
            early.begin(name)
        if needed is not None:
            source = check_model(settings, needed)
            if alone:
                early.begin(source)
        yield early.make


def renew_seconds(shown_every: float) -> float | None:
    """How often leases are renewed, and progress with them: seldom, where it is seldom shown.

    ``None`` where it is often shown, or the environment says more.
    """
    from storage.settings import WorkerSettings

    if not shown_every or "TIDEMILL_RENEW_SECONDS" in os.environ:
        return None
    return min(shown_every, WorkerSettings().renew_seconds)


def quiet_level() -> str | None:
    """The log level of a command that is no server: warnings, unless the environment says more."""
    return None if "TIDEMILL_LOG_LEVEL" in os.environ else "WARNING"
