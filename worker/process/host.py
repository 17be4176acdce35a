"""A whole worker in this process: its threads, its reconciler, and how it hears of wake-ups."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection

import structlog
from prometheus_client.registry import Collector

from engine.config import EngineConfig
from engine.errors import EngineError
from storage.registry import models as model_rows
from storage.settings import Settings
from storage.stores import Stores
from storage.wakeups import Wakeups
from worker.context import WorkerContext
from worker.models.engines import Engine
from worker.plan.scratch import sweep
from worker.process.reconciler import Reconciler
from worker.process.threads import JOB_THREADS, WorkerThreads
from worker.process.wakeup import WakeupEvent

log = structlog.get_logger(__name__)

# How long `stop` waits for each; with the engine's end it takes under ten seconds in all.
THREADS_SECONDS = 5.0
LISTENER_SECONDS = 2.0
RECONCILER_SECONDS = 1.0


class WorkerHost(ABC):
    """Runs jobs in threads of this process. The database's schema must be up to date.

    A subclass listens for wake-ups, in its own way.

    Args:
        stores: closed by the caller, after `stop`.
        wakeups: how it sends its own.
        models: those to serve; ``None`` is all, later ones included.
        job_threads: see `WorkerThreads`.
        reconcile: whether to run a reconciler, which serves all workers, too.
        before: see `WorkerThreads`.
        make_engine: makes an engine that is not started yet; by default a process of its own.
    """

    def __init__(
        self,
        settings: Settings,
        stores: Stores,
        wakeups: Wakeups,
        *,
        models: Collection[str] | None = None,
        job_threads: int = JOB_THREADS,
        reconcile: bool = True,
        before: Callable[[], None] = lambda: None,
        make_engine: Callable[[EngineConfig], Engine] | None = None,
    ) -> None:
        self._worker = WorkerContext.open(settings, stores, wakeups, make_engine)
        self._threads = WorkerThreads(
            self._worker, models=models, job_threads=job_threads, before=before
        )
        self._reconciler = Reconciler(self._worker) if reconcile else None

    @property
    def owner(self) -> str:
        """The name under which it holds leases."""
        return self._worker.owner

    @property
    def metrics(self) -> Collector:
        """Its counters, for Prometheus."""
        return self._worker.metrics.registry

    @property
    def failures(self) -> dict[str, EngineError]:
        """Models whose engine does not start, and why; their jobs wait until it does."""
        return self._threads.failures

    @property
    def job_done(self) -> WakeupEvent:
        """As `WorkerThreads.job_done`."""
        return self._threads.job_done

    def start(self) -> None:
        """Begin to work.

        Raises:
            StorageError: the database cannot be used.
        """
        worker = self._worker
        model_rows.ensure_default(worker.database, worker.settings.worker.default_model)
        sweep()
        self._listen()
        self._threads.start()
        if self._reconciler is not None:
            self._reconciler.start()
        log.info("worker_started", owner=worker.owner)

    @abstractmethod
    def _listen(self) -> None:
        """Hear of wake-ups from now on."""

    @abstractmethod
    def _stop_listening(self, timeout: float) -> None:
        """Hear of no more of them; wait for that at most ``timeout`` seconds."""

    def begin_stop(self) -> None:
        """Give all work back, and do not wait for it; `stop` is called later."""
        self._worker.leaving.set()
        self._worker.stopping.set()

    def stop(self, drain_seconds: float = 0.0) -> bool:
        """Begin no more work, go on for ``drain_seconds`` at most, and then give the rest back.

        Takes about ten seconds more at most. Returns whether every thread has ended.
        """
        worker = self._worker
        worker.leaving.set()
        give_back_at = time.monotonic() + drain_seconds
        if not drain_seconds:
            worker.stopping.set()
        self._stop_listening(LISTENER_SECONDS)
        if drain_seconds and not self._threads.join(max(0.0, give_back_at - time.monotonic())):
            log.info("drain_over", seconds=drain_seconds)
        worker.stopping.set()
        self._threads.interrupt_engines()
        ended = self._threads.join(THREADS_SECONDS)
        if self._reconciler is not None:
            self._reconciler.join(RECONCILER_SECONDS)
        self._threads.close_engines()
        # A thread that is left behind waits for a server that hangs; its leases will run out.
        log.info("worker_stopped" if ended else "worker_left_behind", owner=worker.owner)
        return ended
