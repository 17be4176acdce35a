"""``python -m stack up | status | env``."""

import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import psutil
import typer

from stack.errors import StackError
from stack.local import check_port_free, is_held
from stack.report import Report
from stack.topology import HOST, Stack

DEFAULT_PORT = 8000
WATCH_SECONDS = 1.0

Folder = Annotated[
    Path, typer.Option("--folder", help="Where the data and the logs are.", show_default=True)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
DEFAULT_FOLDER = Path("~/.tidemill-stack")

app = typer.Typer(name="stack", no_args_is_help=True, pretty_exceptions_enable=False)


class _Told(BaseException):
    """The process was told to stop."""


@app.command()
def up(
    workers: Annotated[int, typer.Option("--workers", min=0, help="Worker processes.")] = 1,
    port: Annotated[
        int,
        typer.Option("--port", min=0, max=65535, help="The API's port; 0 takes a free one."),
    ] = DEFAULT_PORT,
    folder: Folder = DEFAULT_FOLDER,
    as_json: Json = False,
) -> None:
    """Start PostgreSQL, Valkey, SeaweedFS, the API, workers and a reconciler, until Ctrl-C.

    A process that ends is started again, as compose would. With --json one line on standard output
    says where everything is, once it is ready.
    """
    if port:
        check_port_free(HOST, port)
    stack = Stack(folder.expanduser(), workers, port=port or None)
    with _stopped_when_told(stack):
        began = time.monotonic()
        _say("Starting PostgreSQL, Valkey and SeaweedFS")
        stack.start_servers()
        _say(f"Starting the API, {workers} worker{'s'[: workers != 1]} and the reconciler")
        stack.start_processes()
        _say(f"Ready after {time.monotonic() - began:.1f} s")
        report = Report.of(stack)
        report.write()
        typer.echo(report.json() if as_json else report.text())
        sys.stdout.flush()
        _watch(stack)


@app.command()
def status(folder: Folder = DEFAULT_FOLDER, as_json: Json = False) -> None:
    """Show the stack of a folder. Exit code 1 says that it does not run as it should."""
    report = Report.read(folder.expanduser())
    if report is None or not is_held(folder.expanduser()):
        raise StackError(f"No stack runs in {folder}.")
    alive = {name: psutil.pid_exists(pid) and pid > 0 for name, pid in report.processes.items()}
    if as_json:
        typer.echo(report.json())
    else:
        typer.echo(f"{report.client_url}  (logs in {report.logs})")
        for name, pid in report.processes.items():
            typer.echo(f"  {name:<12} {pid:>8}  {'runs' if alive[name] else 'does not run'}")
    raise typer.Exit(0 if all(alive.values()) else 1)


@app.command()
def env(folder: Folder = DEFAULT_FOLDER) -> None:
    """Print the settings of a folder's stack for a shell: eval "$(python -m stack env)"."""
    report = Report.read(folder.expanduser())
    if report is None:
        raise StackError(f"No stack was started in {folder} yet.")
    clients = {"TIDEMILL_URL": report.url, "TIDEMILL_API_KEY": report.api_key}
    for name, value in (report.environment | clients).items():
        typer.echo(f"export {name}={shlex.quote(value)}")


@contextmanager
def _stopped_when_told(stack: Stack) -> Iterator[None]:
    """Run the body until Ctrl-C, SIGTERM or the terminal's end, then stop the stack.

    A second signal kills everything at once; the data survives that.
    """

    def told(number: int, frame: FrameType | None) -> None:
        raise _Told

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, told)
    try:
        try:
            yield
        except _Told:
            _say("Stopping; workers may end their chunks first. A second Ctrl-C ends at once.")
        finally:
            stack.stop()
    except _Told:
        _say("Killing everything.")
        stack.kill()
        stack.stop()


def _watch(stack: Stack) -> None:
    """Start again what ends, for ever."""
    while True:
        time.sleep(WATCH_SECONDS)
        ended = [process for process in stack.everything if not process.running]
        for process in ended:
            code = process.returncode
            _say(f"{process.name} ended with code {code}, starts again; see {process.log_path}")
            process.launch()
        if ended:
            Report.of(stack).write()


def _say(line: str) -> None:
    typer.echo(line, err=True)
