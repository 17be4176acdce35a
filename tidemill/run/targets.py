"""Where results go: the names that the user left open, and whether they can be written."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from storage.datasets.values.files import plain_name
from storage.datasets.values.results import ResultColumns
from storage.datasets.values.sources import Kind
from tidemill import terminal
from tidemill.errors import TidemillError, UsageError
from tidemill.run.files import STDOUT, WholeFile, is_stream, output_path
from tidemill.run.formats import Format


@dataclass(frozen=True, slots=True)
class Target:
    """Where results go and how.

    Attributes:
        output: the output file; ``-`` is standard output.
        errors: the errors file, only written when there are errors; ``None`` for Parquet, which
            keeps them in a column, unless one was asked for.
    """

    output: Path
    errors: Path | None
    format: Format
    columns: ResultColumns


def plan_target(
    name: Path,
    kind: Kind,
    *,
    output: Path | None = None,
    errors: Path | None = None,
    format: Format | None = None,
    answer_column: str = "answer",
) -> Target:
    """Fill in what the user left open: the input's own format, and names beside ``name``.

    An output or errors file that is a folder gets a file in it, named after the input.
    """
    name = name.with_name(plain_name(name.name))
    output = output and output_path(output)
    errors = errors and output_path(errors)
    if output is not None and output.is_dir():
        name, output = output / name.name, None
    if format is None and output is not None and output.suffix == ".parquet":
        format = Format.PARQUET
    if format is None:
        same = {Kind.REQUESTS: Format.OPENAI, Kind.PARQUET: Format.PARQUET}
        format = same.get(kind, Format.PLAIN)
    suffix = ".parquet" if format is Format.PARQUET else ".jsonl"
    base = name if output is None or is_stream(output) else output
    if errors is None and format is not Format.PARQUET:
        errors = base.with_name(base.stem + ".errors.jsonl")
    elif errors is not None and errors.is_dir():
        errors = errors / (base.stem + ".errors.jsonl")
    output = output or name.with_name(name.stem + ".output" + suffix)
    return Target(output, errors, format, ResultColumns.named(answer_column))


def check_target(target: Target, source: Path | None) -> None:
    """Find out before any work whether the results can be written.

    Args:
        source: the input file, where there is one that a result could overwrite.

    Raises:
        UsageError: two of the paths are one file, a result's cannot be written to, or Parquet
            would go to a terminal.
        TidemillError: a result's folder is missing or cannot be written.
    """
    check_targets([(target, source)])


def check_targets(pairs: Iterable[tuple[Target, Path | None]]) -> None:
    """As `check_target`, for the targets and inputs of several jobs: no file is named twice."""
    pairs = list(pairs)
    seen: dict[object, str] = {}
    for number, (target, source) in enumerate(pairs):
        of = f" of {source}" if source is not None and len(pairs) > 1 else ""
        for what, path in _named(target, source):
            identity = _identity(path, number)
            label = what + of
            if identity is not None and identity in seen:
                raise UsageError(
                    f"{_capital(seen[identity])} and {label} are the same file, {path}; "
                    "name another with --output or --errors."
                )
            if identity is not None:
                seen[identity] = label
    for target, _ in pairs:
        _check_writable(path for path in (target.output, target.errors) if path != STDOUT)
        if target.format is Format.PARQUET and target.output == STDOUT and terminal.is_terminal():
            raise UsageError("Parquet is not for a terminal: name a file with --output, or a pipe.")


def _named(target: Target, source: Path | None) -> Iterator[tuple[str, Path]]:
    if source is not None:
        yield "the input", source
    yield "the output", target.output
    if target.errors is not None:
        yield "the errors file", target.errors


def _identity(path: Path, job: int) -> object:
    """What is equal for two names of one file; ``None`` for what may be written to twice."""
    if path == STDOUT:
        # Several jobs may follow each other there, but not a job's output and its errors.
        return STDOUT, job
    if path.is_char_device():
        return None
    if path.exists():
        found = path.stat()
        return found.st_dev, found.st_ino
    return path.resolve()


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _check_writable(paths: Iterable[Path | None]) -> None:
    for path in filter(None, paths):
        if is_stream(path):
            if not os.access(path, os.W_OK):
                raise TidemillError(f"{path} cannot be written: permission denied.")
            continue
        if path.exists() and not path.is_file():
            kind = "a folder" if path.is_dir() else "no regular file"
            raise UsageError(f"{path} is {kind}; name a file, or '-' for standard output.")
        folder = Path(os.path.realpath(path)).parent
        if not folder.is_dir():
            raise TidemillError(f"{path} cannot be written: there is no folder {path.parent}.")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise TidemillError(f"{path} cannot be written: {path.parent} is not writable.")
        check_can_write(path)


class _Probed(Exception):
    """The file could be made; a file that is not written to its end is not kept."""


def check_can_write(path: Path) -> None:
    """Find out whether a `WholeFile` of this path can be made, and leave nothing behind.

    Raises:
        TidemillError: it cannot.
    """
    with suppress(_Probed), WholeFile(path):
        raise _Probed
