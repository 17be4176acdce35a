"""What all parts of one worker share: settings, database, object store, engines."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

from engine.config import EngineConfig
from storage.broker import open_wakeups
from storage.database.connection import Database
from storage.ids import new_id
from storage.objects import ObjectStore
from storage.settings import Settings
from storage.stores import Stores
from storage.wakeups import Wakeups
from worker.errors import Stopping
from worker.lease import Lease, LeaseKeeper, Renewal
from worker.metrics import WorkerMetrics
from worker.models.devices import engine_devices
from worker.models.engines import Engine, Engines, check_engine_settings
from worker.models.loaded_texts import LoadedTextModels
from worker.models.tokenizers import TextModel, load_text_model

# A renewal is what moves the progress that is shown; a client looks every two seconds at most.
EMBEDDED_RENEW_SECONDS = 2.0


def owner_name() -> str:
    """A name for the owner of leases, for people to read: a lease is known by its attempt."""
    return f"{socket.gethostname()}/{os.getpid()}/{new_id('w')[-6:]}"


@dataclass(frozen=True)
class WorkerContext:
    """Everything that the threads share.

    Attributes:
        leaving: set once, when no more work is to be begun; work that was begun goes on.
        stopping: set once, when work that was begun is to be given back.
        committed: set when a chunk is committed that may have been the last one of its job.
        draining: held by the one drain loop that may run.
    """

    settings: Settings
    database: Database
    store: ObjectStore
    wakeups: Wakeups
    engines: Engines
    load_text_model: Callable[[str, str], TextModel] = load_text_model
    owner: str = field(default_factory=owner_name)
    metrics: WorkerMetrics = field(default_factory=WorkerMetrics)
    leaving: threading.Event = field(default_factory=threading.Event)
    stopping: threading.Event = field(default_factory=threading.Event)
    committed: threading.Event = field(default_factory=threading.Event)
    draining: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def open(
        cls,
        settings: Settings,
        stores: Stores,
        wakeups: Wakeups | None = None,
        make_engine: Callable[[EngineConfig], Engine] | None = None,
    ) -> "WorkerContext":
        """A context on stores that the caller closes; nothing is connected yet.

        Args:
            wakeups: how it sends them; by default as the settings say.
            make_engine: as in `Engines`.

        Raises:
            ConfigurationError: the engine's settings cannot be used.
        """
        check_engine_settings(settings.engine)
        metrics = WorkerMetrics()
        return cls(
            settings=settings,
            database=stores.database,
            store=stores.objects,
            wakeups=wakeups or open_wakeups(settings.storage),
            engines=Engines(settings.engine, make_engine, metrics),
            load_text_model=LoadedTextModels(
                partial(
                    load_text_model,
                    with_control_tokens=settings.worker.models_with_control_tokens,
                )
            ),
            metrics=metrics,
        )

    def by_device(self) -> tuple["WorkerContext", ...]:
        """One context for each device of the engine's settings, or this one where there is one.

        They share all but the engine, the drain loop and the owner's name.
        """
        devices = engine_devices(self.settings.engine.device)
        if len(devices) == 1:
            return (self,)
        return tuple(
            replace(
                self,
                owner=f"{self.owner}/{index}",
                draining=threading.Lock(),
                engines=self.engines.another(device),
            )
            for index, device in enumerate(devices)
        )

    @property
    def ending(self) -> bool:
        """Whether no more work is to be begun."""
        return self.leaving.is_set() or self.stopping.is_set()

    @property
    def renew_seconds(self) -> float:
        """How often leases are renewed and progress is reported."""
        chosen = "renew_seconds" in self.settings.worker.model_fields_set
        if self.settings.storage.embedded and not chosen:
            return EMBEDDED_RENEW_SECONDS
        return self.settings.worker.renew_seconds

    @contextmanager
    def kept_lease(self, name: str, renew: Callable[[], Renewal], since: float) -> Iterator[Lease]:
        """A lease that is renewed while the context lasts; ``since`` is as in `Lease`."""
        lease = Lease(name, seconds=self.settings.worker.lease_seconds, since=since)
        with LeaseKeeper(self.renew_seconds, lambda: lease.renew(renew)):
            yield lease

    def heartbeat(self, lease: Lease) -> Callable[[], None]:
        """A check to call in inner loops.

        It raises `LeaseLost`, or `Stopping` when the worker or the job is to stop.
        """

        def check() -> None:
            lease.check()
            if self.stopping.is_set() or lease.stop is not None:
                raise Stopping

        return check
