"""The `tidemill` command."""

import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from tidemill.cli import batches, doctor, lifecycle, models, processes, run, up
from tidemill.cli.texts import only_utf8
from tidemill.errors import TidemillError
from tidemill.exits import HELP, ExitCode

app = typer.Typer(
    name="tidemill",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    epilog=HELP,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command, name in (
    (up.up, "up"),
    (processes.api, "api"),
    (processes.worker, "worker"),
    (processes.reconciler, "reconciler"),
    (run.run, "run"),
    (run.submit, "submit"),
    (batches.status, "status"),
    (batches.watch, "watch"),
    (batches.fetch, "fetch"),
    (lifecycle.cancel, "cancel"),
    (lifecycle.pause, "pause"),
    (lifecycle.resume, "resume"),
    (lifecycle.retry, "retry"),
    (batches.list_batches, "list"),
    (doctor.doctor, "doctor"),
):
    app.command(name, epilog=HELP)(command)
only_utf8(app)
only_utf8(models.app)
app.add_typer(models.app, name="models")


def show_version(wanted: bool) -> None:
    """Print the version and exit."""
    if wanted:
        from tidemill import __version__

        typer.echo(f"tidemill {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Batch inference for language models on your own machines."""


def main() -> None:
    """Run the command and exit; errors that are expected are one message, not a traceback."""
    if isinstance(sys.stdout, TextIOWrapper):
        # A file's name may hold what the terminal's encoding does not have.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except TidemillError as error:
        fail(str(error), error.exit_code)
    except Exception as error:
        # Imported only here: most commands never need these floors.
        from engine.errors import EngineError
        from storage.errors import StorageError

        if not isinstance(error, EngineError | StorageError):
            raise
        fail(str(error), ExitCode.FAILURE)


def fail(message: str, code: ExitCode) -> None:
    """Print an error and exit."""
    label = "\033[31mError:\033[0m" if sys.stderr.isatty() else "Error:"
    typer.echo(f"{label} {message}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
