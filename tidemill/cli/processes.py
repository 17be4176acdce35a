"""``tidemill api``, ``tidemill worker`` and ``tidemill reconciler``: each in a process of its
own."""

from typing import Annotated

import typer

from tidemill import terminal
from tidemill.cli import options
from tidemill.cli.ranges import at_least


def api(
    host: options.Host = None,
    port: options.Port = None,
) -> None:
    """Start the API alone, until Ctrl-C or SIGTERM; workers do the work elsewhere.

    It needs TIDEMILL_DATABASE_URL, TIDEMILL_BROKER_URL and TIDEMILL_OBJECT_STORE_URL, the same as
    the workers. Listening on an address that other machines can reach needs TIDEMILL_API_KEYS.

    Examples:

        tidemill api --port 8000

        TIDEMILL_API_KEYS=acme:secret tidemill api --host 0.0.0.0
    """
    from tidemill.run.session import settings_for
    from tidemill.serve.logs import start_logs
    from tidemill.serve.signals import stop_on_signals, wait_until_set

    settings = settings_for(None, host=host, port=port)
    start_logs(settings)
    stop = stop_on_signals()
    from tidemill.serve.service import Service

    with Service(settings, shared=True, stop=stop) as service:
        _ready(f"Tidemill listens on {service.url}/v1 and leaves the work to 'tidemill worker'.")
        wait_until_set(stop)


def worker(
    models: Annotated[
        str | None,
        typer.Option(
            "--models",
            metavar="A,B",
            help="The models to serve, by name. [default: all, later ones included]",
        ),
    ] = None,
    concurrency: Annotated[
        int,
        typer.Option(
            "--concurrency",
            callback=at_least(1),
            metavar="<1 or more>",
            help="Short jobs planned or finalized at once; two long ones may be beside them.",
        ),
    ] = 2,
    drain_seconds: Annotated[
        float | None,
        typer.Option(
            "--drain-seconds",
            callback=at_least(0.0),
            metavar="<0 or more>",
            help="On SIGTERM, how long chunks in hand may still run. [default: 20]",
        ),
    ] = None,
    no_reconciler: Annotated[
        bool,
        typer.Option("--no-reconciler", help="Leave what falls due to 'tidemill reconciler'."),
    ] = False,
) -> None:
    """Start a worker, until Ctrl-C or SIGTERM: one a GPU, or one a machine without.

    It plans jobs, runs their chunks on its engine, and puts results together. It needs the API's
    settings. The first SIGTERM lets chunks in hand end for --drain-seconds and gives the rest back;
    the exit code is then 0, after 30 seconds at most. The second one ends it at once.

    Examples:

        tidemill worker

        CUDA_VISIBLE_DEVICES=1 tidemill worker --models smollm2,llama --drain-seconds 15
    """
    from tidemill.run.session import settings_for
    from tidemill.serve.logs import start_logs
    from tidemill.serve.signals import stop_on_signals

    settings = settings_for(None, drain_seconds=drain_seconds)
    start_logs(settings)
    stop = stop_on_signals()
    from tidemill.serve.processes import run_worker

    names = None if models is None else [name.strip() for name in models.split(",") if name.strip()]
    run_worker(settings, names, concurrency, not no_reconciler, stop, _ready)


def reconciler() -> None:
    """Start a reconciler, until Ctrl-C or SIGTERM: it sees to what falls due, whoever died.

    It gives the chunks of dead workers back, expires and cancels, and deletes what nobody needs
    any more. One is enough and two are safe; every worker carries one unless told otherwise.

    Examples:

        tidemill reconciler
    """
    from tidemill.run.session import settings_for
    from tidemill.serve.logs import start_logs
    from tidemill.serve.signals import stop_on_signals

    settings = settings_for(None)
    start_logs(settings)
    stop = stop_on_signals()
    from tidemill.serve.processes import run_reconciler

    run_reconciler(settings, stop, _ready)


def _ready(line: str) -> None:
    terminal.put(line)
    terminal.flush()
