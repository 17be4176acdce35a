"""Tables whose rows a template makes requests of: opened, and their columns known."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Final

from storage.datasets.readers.delimited import read_header
from storage.datasets.readers.kinds import kind_named, open_source, open_table
from storage.datasets.readers.rows import read_records, read_rows
from storage.datasets.readers.unpacked import open_unpacked
from storage.datasets.templates.row_template import RowTemplate
from storage.datasets.values.files import LocalFile
from storage.datasets.values.rows import listed
from storage.datasets.values.sources import Kind, Limits, Source, shown
from storage.errors import InputNotUnderstood

MOST_NAMES: Final = 10_000


def open_rows(
    path: Path,
    template: RowTemplate,
    *,
    name: str | None = None,
    kind: Kind | None = None,
    limits: Limits = Limits(),
) -> Source:
    """Look at a table of which a template takes columns, which are all there.

    Args:
        name: its name where the path is only a copy of it.
        kind: what it is, where the user says so.

    Raises:
        InputNotUnderstood: it cannot be read, or is no table.
        TemplateError: the template reads a column that is not there.
    """
    name = name or shown(path.name)
    source = open_table(LocalFile(path), name, template.columns, kind=kind, limits=limits)
    if source.kind is Kind.REQUESTS:
        return source
    template.check(column_names(source, template.columns))
    by = "by --input-format" if kind else "by its name" if kind_named(name) else "by its content"
    columns = f", columns {listed(sorted(template.columns))}" if template.columns else ""
    return replace(source, columns=template.columns, reason=f"{by}{columns}", asked=True)


def column_names(source: Source, wanted: Collection[str] = ()) -> list[str]:
    """The names of a table's columns; of JSON lines those of the fields in the first lines, until
    all that are wanted are among them.

    Raises:
        InputNotUnderstood: the table cannot be read.
    """
    if source.kind is Kind.PARQUET:
        from storage.datasets.readers.parquet_batches import checked_schema

        return list(checked_schema(source.file, source.name, source.limits).names)
    if source.kind.delimited:
        with open_unpacked(source.file, source.name, source.limits) as stream:
            return read_header(stream, source)
    found: dict[str, None] = {}
    for row in read_records(source, wanted):
        if len(found) < MOST_NAMES:
            found.update(dict.fromkeys(row.fields))
        else:
            found.update(dict.fromkeys(name for name in wanted if name in row.fields))
        if found.keys() >= set(wanted) and found:
            break
    return list(found)


def open_joined(
    path: Path,
    *,
    name: str | None = None,
    column: str | None = None,
    kind: Kind | None = None,
    limits: Limits = Limits(),
) -> Source:
    """An input whose rows are put beside their results, with prompts in it or without.

    Raises:
        InputNotUnderstood: as `open_source`, where it is no table either.
    """
    try:
        return open_source(path, name=name, column=column, kind=kind, limits=limits)
    except InputNotUnderstood:
        # The rows of a template need no prompts. What else is wrong is said as it is for others.
        table = _table(path, name or shown(path.name), kind, limits) if column is None else None
        if table is None:
            raise
        return table


def _table(path: Path, name: str, kind: Kind | None, limits: Limits) -> Source | None:
    try:
        source = open_table(LocalFile(path), name, (), kind=kind, limits=limits)
        source = replace(source, columns=frozenset())
        first = next(read_rows(source), None)
    except InputNotUnderstood:
        return None
    readable = first is not None and first.problem is None and first.raw is None
    return source if readable and source.kind not in (Kind.TEXT, Kind.REQUESTS) else None
