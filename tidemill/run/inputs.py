"""The input that a command names: a file, a pipe, or standard input."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO

from storage.datasets.readers.kinds import open_source
from storage.datasets.values.sources import Kind, Limits, Source, shown
from tidemill.errors import InputError
from tidemill.run.dataset_errors import dataset_errors
from tidemill.run.session import settings_for

STDIN = Path("-")


@contextmanager
def open_input(
    path: Path, column: str | None, home: Path | None, kind: Kind | None = None
) -> Iterator[Source]:
    """The input, told by its content; what can be read only once through a temporary copy.

    Args:
        column: the field or column with the prompts.
        home: the folder whose settings limit the input.
        kind: what the input is, where the user says so.

    Raises:
        InputError: it cannot be read, is none of the kinds, or is larger than the limits.
    """
    settings = settings_for(home)
    limits = Limits(settings.api.max_line_bytes, settings.api.max_decoded_bytes)
    if path != STDIN and (path.is_file() or path.is_dir() or not path.exists()):
        with dataset_errors():
            source = open_source(path, column=column, kind=kind, limits=limits)
        yield source
        return
    with tempfile.NamedTemporaryFile(prefix="tidemill-") as copy:
        name = _copy(path, copy.file)
        with dataset_errors():
            source = open_source(
                Path(copy.name), name=name, column=column, kind=kind, limits=limits
            )
        yield source


def _copy(path: Path, destination: IO[bytes]) -> str:
    """Read a pipe to its end; returns what to call it."""
    # The shell's <(command) is /dev/fd/63 or so, which says nothing.
    name = "stdin" if path == STDIN else "pipe" if path.name.isdigit() else shown(path.name)
    try:
        with nullcontext(sys.stdin.buffer) if path == STDIN else path.open("rb") as pipe:
            shutil.copyfileobj(pipe, destination)
        destination.flush()
    except OSError as error:
        # A full disk, too: a pipe is kept in a temporary file while the command runs.
        raise InputError(f"{name} cannot be read to its end: {error.strerror}.") from error
    return name
