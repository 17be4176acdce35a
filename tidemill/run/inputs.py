"""The input that a command names: a file, a pipe, or standard input."""

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

from storage.datasets.readers.kinds import open_source
from storage.datasets.values.sources import Kind, Limits, Source, shown
from tidemill.errors import InputError, UsageError
from tidemill.run.dataset_errors import dataset_errors
from tidemill.run.session import settings_for

if TYPE_CHECKING:
    from storage.datasets.templates.row_template import RowTemplate

STDIN = Path("-")


@contextmanager
def open_inputs(
    paths: Sequence[Path],
    column: str | None,
    home: Path | None,
    kind: Kind | None = None,
    template: "RowTemplate | None" = None,
) -> Iterator[list[Source]]:
    """Several inputs, each as `open_input` gives it; none is begun before all can be read.

    Raises:
        UsageError: standard input is named twice.
        InputError: as `open_input`.
    """
    if list(paths).count(STDIN) > 1:
        raise UsageError("'-' is named twice; standard input can be read once.")
    with ExitStack() as stack:
        opened = (open_input(path, column, home, kind, template) for path in paths)
        yield [stack.enter_context(each) for each in opened]


@contextmanager
def open_input(
    path: Path,
    column: str | None,
    home: Path | None,
    kind: Kind | None = None,
    template: "RowTemplate | None" = None,
    *,
    joined: bool = False,
) -> Iterator[Source]:
    """The input, told by its content; what can be read only once through a temporary copy.

    Args:
        column: the field or column with the prompts.
        home: the folder whose settings limit the input.
        kind: what the input is, where the user says so.
        template: what makes requests of its rows, in place of a column with the prompts.
        joined: whether its rows are only put beside their results; they need no prompts then.

    Raises:
        InputError: it cannot be read, is none of the kinds, or is larger than the limits.
        UsageError: the template reads a column that is not there.
    """
    settings = settings_for(home)
    limits = Limits(settings.api.max_line_bytes, settings.api.max_decoded_bytes)
    opened = partial(
        _opened, column=column, kind=kind, limits=limits, template=template, joined=joined
    )
    if path != STDIN and _is_file(path):
        yield opened(path, None)
        return
    with tempfile.NamedTemporaryFile(prefix="tidemill-") as copy:
        name = _copy(path, copy.file)
        yield opened(Path(copy.name), name)


def _opened(
    path: Path,
    name: str | None,
    *,
    column: str | None,
    kind: Kind | None,
    limits: Limits,
    template: "RowTemplate | None",
    joined: bool,
) -> Source:
    with dataset_errors():
        if template is None and not joined:
            return open_source(path, name=name, column=column, kind=kind, limits=limits)
        from storage.datasets.templates.tables import open_joined, open_rows

        if template is None:
            return open_joined(path, name=name, column=column, kind=kind, limits=limits)
        return open_rows(path, template, name=name, kind=kind, limits=limits)


def _is_file(path: Path) -> bool:
    """Whether it can be read more than once; ``InputError`` where it cannot be read at all."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    if stat.S_ISDIR(mode):
        raise InputError(f"{path} is a folder; name the files in it, as {path / '*.jsonl'}.")
    if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode) and not _is_typed(path, mode):
        raise InputError(f"{path} is a device or a socket; name a file, a pipe, or '-'.")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path} cannot be read: Permission denied.")
    return stat.S_ISREG(mode)


def _is_typed(path: Path, mode: int) -> bool:
    """Whether it is a terminal, whose lines somebody types."""
    if not stat.S_ISCHR(mode):
        return False
    with suppress(OSError), path.open("rb", buffering=0) as device:
        return device.isatty()
    return False


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
        where = name if path == STDIN else path
        raise InputError(f"{where} cannot be read to its end: {error.strerror}.") from error
    return name
