"""``tidemill up``: the whole service in one command."""

import os
import signal
import sys
import threading
from types import FrameType
from typing import Annotated

import typer

from tidemill.commands import options


def up(
    host: Annotated[
        str | None, typer.Option("--host", help="The address to listen on. [default: 127.0.0.1]")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65535, help="0 takes a free one. [default: 8000]"),
    ] = None,
    home: options.Home = None,
) -> None:
    """Start the service: API, worker and reconciler, until Ctrl-C or SIGTERM.

    Listening on an address that other machines can reach needs TIDEMILL_API_KEYS to be set. The
    first Ctrl-C gives running work back and stops, with exit code 0; the second ends at once.
    Where TIDEMILL_BROKER_URL names a broker, only the API starts: workers are started by
    themselves.

    Examples:

        tidemill up

        TIDEMILL_API_KEYS=secret tidemill up --host 0.0.0.0 --port 9000 --home /data/tidemill
    """
    from tidemill.logs import configure_logs
    from tidemill.session import settings_for

    settings = settings_for(home, host=host, port=port)
    configure_logs(settings.log_level)
    stop = threading.Event()
    _stop_on_signals(stop)
    from tidemill.service import Service

    with Service(settings) as service:
        where = f"keeps its data in {settings.home}"
        if not settings.embedded:
            where = "leaves the work to 'celery -A worker.app worker'"
        typer.echo(f"Tidemill listens on {service.url}/v1 and {where}. Ctrl-C stops it.")
        sys.stdout.flush()
        stop.wait()
        typer.echo("Stopping. A second Ctrl-C ends at once.", err=True)


def _stop_on_signals(stop: threading.Event) -> None:
    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
