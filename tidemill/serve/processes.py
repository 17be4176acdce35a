"""A worker and a reconciler, each in a process of its own."""

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from prometheus_client.registry import Collector

from storage.database.startup import bring_up
from storage.probes import probe_at_start
from storage.registry import models as model_rows
from storage.settings import Settings
from storage.stores import Stores
from tidemill.errors import UsageError
from tidemill.serve.metrics import serve_metrics
from tidemill.serve.service import check_shared
from tidemill.serve.signals import wait_until_set
from worker.context import WorkerContext
from worker.metrics import BacklogCollector
from worker.models.engines import check_engine_settings
from worker.process.reconciler import Reconciler
from worker.process.server import ServerWorker

STOP_SECONDS = 10.0


def run_worker(
    settings: Settings,
    models: Sequence[str] | None,
    concurrency: int,
    reconcile: bool,
    stop: threading.Event,
    ready: Callable[[str], None],
) -> None:
    """Run a worker until ``stop`` is set. ``ready`` is called with one line once it looks for work.

    Raises:
        ConfigurationError: the settings cannot be shared.
        DatabaseUnavailable: it did not answer in time.
        UsageError: no model was named, or one that there is not.
    """
    with ExitStack() as stack:
        check_engine_settings(settings.engine)
        stores = _start(settings, "worker", models, stop, stack)
        host = ServerWorker(
            settings, stores, models=models, job_threads=concurrency, reconcile=reconcile
        )
        stack.callback(host.stop, settings.worker.drain_seconds)
        host.start()
        _serve(settings, [host.metrics, BacklogCollector(stores.database)], stack)
        served = "all" if models is None else ", ".join(models)
        ready(f"Worker {host.owner} is ready: models {served}.")
        wait_until_set(stop)


def run_reconciler(settings: Settings, stop: threading.Event, ready: Callable[[str], None]) -> None:
    """Run a reconciler until ``stop`` is set.

    Raises:
        ConfigurationError: the settings cannot be shared.
        DatabaseUnavailable: it did not answer in time.
    """
    with ExitStack() as stack:
        stores = _start(settings, "reconciler", None, stop, stack)
        worker = WorkerContext.open(settings, stores)
        reconciler = Reconciler(worker)
        stack.callback(reconciler.join, STOP_SECONDS)
        stack.callback(worker.stopping.set)
        reconciler.start()
        _serve(settings, [BacklogCollector(stores.database)], stack)
        ready(f"Reconciler {worker.owner} is ready.")
        wait_until_set(stop)


def _start(
    settings: Settings,
    command: str,
    models: Sequence[str] | None,
    stop: threading.Event,
    stack: ExitStack,
) -> Stores:
    """Open the stores, wait for the database, bring it up to date, and look at what there is."""
    check_shared(settings.storage, command)
    stores = stack.enter_context(Stores.open(settings.storage))
    database = stores.database
    if not bring_up(database, seconds=settings.storage.start_timeout_seconds, stop=stop):
        raise SystemExit(0)  # told to stop before it could begin
    model_rows.ensure_default(database, settings.worker.default_model)
    if models is not None:
        _check_models(models, [row.name for row in model_rows.list_models(database)])
    probe_at_start(settings.storage, stores, stop)
    return stores


def _serve(settings: Settings, collectors: Sequence[Collector], stack: ExitStack) -> None:
    process = settings.process
    hosts = settings.api.extra_hosts
    served = serve_metrics(
        process.metrics_host, process.metrics_port, collectors, allowed_hosts=hosts
    )
    stack.enter_context(served)


def _check_models(models: Sequence[str], known: Sequence[str]) -> None:
    if not models:
        raise UsageError("--models names no model; leave it out to serve all.")
    unknown = [name for name in models if name not in known]
    if unknown:
        raise UsageError(
            f"There is no model {', '.join(unknown)}; there is {', '.join(known)}. "
            "'tidemill models add NAME PATH' adds one."
        )
