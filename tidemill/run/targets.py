"""Where results go: the names that the user left open, and whether they can be written."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from storage.datasets.values.results import ResultColumns
from storage.datasets.values.sources import Kind
from tidemill.errors import TidemillError, UsageError
from tidemill.run.files import STDOUT
from tidemill.run.formats import Format
from tidemill.run.probe import check_can_write


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

    Raises:
        UsageError: the output's name is empty.
    """
    name = name.with_suffix("") if name.suffix == ".gz" else name
    if output is not None and not output.name:
        raise UsageError("--output needs the name of a file, or '-' for standard output.")
    if format is None and output is not None and output.suffix == ".parquet":
        format = Format.PARQUET
    if format is None:
        same = {Kind.REQUESTS: Format.OPENAI, Kind.PARQUET: Format.PARQUET}
        format = same.get(kind, Format.PLAIN)
    suffix = ".parquet" if format is Format.PARQUET else ".jsonl"
    base = name if output is None or output == STDOUT else output
    if errors is None and format is not Format.PARQUET:
        errors = base.with_name(base.stem + ".errors.jsonl")
    output = output or name.with_name(name.stem + ".output" + suffix)
    return Target(output, errors, format, ResultColumns.named(answer_column))


def check_target(target: Target, source: Path | None) -> None:
    """Find out before any work whether the results can be written.

    Args:
        source: the input file, where there is one that a result could overwrite.

    Raises:
        UsageError: two of the paths are one file, or a result's is no regular file.
        TidemillError: a result's folder is missing or cannot be written.
    """
    named = {"the input": source, "the output": target.output, "the errors file": target.errors}
    files = {what: path for what, path in named.items() if path is not None}
    for (one, first), (other, second) in combinations(files.items(), 2):
        if _same(first, second):
            raise UsageError(
                f"{one.capitalize()} and {other} are the same file, {second}; "
                "name another with --output or --errors."
            )
    _check_writable(path for path in (target.output, target.errors) if path not in (None, STDOUT))


def _same(one: Path, other: Path) -> bool:
    if one.exists() and other.exists():
        return one.samefile(other)
    return one.resolve() == other.resolve()


def _check_writable(paths: Iterable[Path | None]) -> None:
    for path in filter(None, paths):
        if path.exists() and not path.is_file():
            kind = "a folder" if path.is_dir() else "no regular file"
            raise UsageError(f"{path} is {kind}; name a file, or '-' for standard output.")
        if not path.parent.is_dir():
            raise TidemillError(f"{path} cannot be written: there is no folder {path.parent}.")
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise TidemillError(f"{path} cannot be written: {path.parent} is not writable.")
        check_can_write(path)
