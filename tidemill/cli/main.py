"""The `tidemill` command."""

import errno
import gc
import sys
from typing import Annotated

import typer

from tidemill import terminal
from tidemill.cli import batches, doctor, estimate, lifecycle, models, processes, run, up
from tidemill.cli.texts import only_utf8
from tidemill.errors import Interrupted, TidemillError
from tidemill.exits import HELP, ExitCode
from tidemill.serve.signals import Heard, interruptible

# How many objects are made before Python looks for garbage again. With its own 700, importing the
# service's packages brings about hundreds of looks, which find nothing.
GARBAGE_OBJECTS = 50_000

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
    (estimate.estimate, "estimate"),
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

        terminal.put(f"tidemill {__version__}")
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
    """Run the command and exit; errors that are expected are one line, not a traceback."""
    gc.set_threshold(GARBAGE_OBJECTS)
    terminal.prepare_streams()
    sys.excepthook = terminal.say_traceback
    with interruptible() as heard:
        code = _guarded(heard)
        code = _flushed(code)
    sys.exit(code)


def fail(message: str, code: int) -> int:
    """Print an error on one line; gives the code back."""
    terminal.say_error(_one_line(message))
    return code


def _one_line(message: str) -> str:
    return " ".join(filter(None, (line.strip() for line in message.split("\n"))))


def _guarded(heard: Heard) -> int:
    try:
        return _run(heard)
    except KeyboardInterrupt:
        terminal.say("Interrupted.")
        return heard.exit_code
    except Interrupted as error:
        terminal.say(_one_line(str(error)))
        return heard.exit_code
    except TidemillError as error:
        return fail(str(error), error.exit_code)
    except typer.TyperException as error:
        return _usage(error)
    except typer.Abort:
        return ExitCode.FAILURE
    except BrokenPipeError:
        return ExitCode.READER_GONE
    except OSError as error:
        return fail(_of_system(error), ExitCode.FAILURE)
    except Exception as error:
        # Imported only here: most commands never need these floors.
        from engine.errors import EngineError
        from storage.errors import StorageError

        if not isinstance(error, EngineError | StorageError):
            raise
        return fail(str(error), ExitCode.FAILURE)


def _run(heard: Heard) -> int:
    code = app(standalone_mode=False)
    # Typer makes an exit code of a KeyboardInterrupt.
    if code == ExitCode.INTERRUPTED and heard.number is not None:
        raise KeyboardInterrupt
    return code if isinstance(code, int) else ExitCode.OK


def _flushed(code: int) -> int:
    """Write what standard output still holds; gives the exit code."""
    try:
        terminal.flush()
    except BrokenPipeError:
        code = code or ExitCode.READER_GONE
    except TidemillError as error:
        code = code or fail(str(error), error.exit_code)
    return code


def _usage(error: typer.TyperException) -> int:
    message = error.format_message()
    if message:
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "tidemill"
        message = message.replace("Value error, ", "")
        fail(f"{message} See '{path} --help'.", error.exit_code)
    return error.exit_code


def _of_system(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    message = f"{error.filename}: {reason}." if error.filename else f"{reason}."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        message += " Free some space and try again; temporary files go where TMPDIR says."
    return message


if __name__ == "__main__":
    main()
