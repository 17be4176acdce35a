"""Whether the columns that requests are made of are there, and of one type in all files."""

from collections.abc import Iterable, Mapping
from typing import Any

from storage.datasets.readers.delimited import read_header
from storage.datasets.readers.unpacked import open_unpacked
from storage.datasets.templates.row_template import RowTemplate
from storage.datasets.values.rows import listed
from storage.datasets.values.sources import Kind, Source
from storage.errors import InputNotUnderstood, TemplateError

KEY_PARAM = "tidemill.key"
MOST_NAMES = 10_000  # that are remembered, where every row may have others


class DatasetColumns:
    """The columns that a template and a key read, over the files of a dataset.

    Attributes:
        wanted: their names.
        missing: those that nothing had so far.
        by_row: whether the rows have names of their own, so that only rows can tell.
    """

    def __init__(self, template: RowTemplate | None, key: str | None) -> None:
        self._template = template
        self._key = key
        of_template: Iterable[str] = template.columns if template else ()
        self.wanted = frozenset(of_template).union([key] if key else [])
        self.missing = set(self.wanted)
        self.by_row = False
        self._rows = False
        self._names: dict[str, None] = {}
        self._types: dict[str, tuple[str, object, str]] = {}

    def add_table(self, source: Source, partitions: Iterable[str]) -> None:
        """Take a file's columns into account.

        Raises:
            InputNotUnderstood: it cannot be read; a column has values of another kind in a file
                before it, which is named.
        """
        if not self.wanted:
            return
        self._add(partitions)
        if source.kind is Kind.PARQUET:
            self._add_types(source)
        elif source.kind.delimited:
            with open_unpacked(source.file, source.name, source.limits) as stream:
                self._add(read_header(stream, source))
        elif source.kind is Kind.TEXT:
            self._add(("prompt",))
        else:
            self.by_row = True

    def add_row(self, fields: Mapping[str, Any]) -> None:
        """Take the names of a row into account."""
        self._rows = self._rows or bool(fields)
        if self.missing:
            self._add(fields)

    def check(self) -> None:
        """Check that nothing is missing, once all files were added, or all rows of such files.

        Raises:
            TemplateError: something is; names the parameter that asks for it.
        """
        if not self.missing or not self._names or (self.by_row and not self._rows):
            return
        if self._template is not None:
            self._template.check(self._names)
        raise TemplateError(
            f"There is no column {self._key!r} to take the custom_id from. The columns are "
            f"{listed(self._names)}.",
            KEY_PARAM,
        )

    def _add(self, names: Iterable[str]) -> None:
        self.missing.difference_update(names := tuple(names))
        if len(self._names) < MOST_NAMES:
            self._names.update(dict.fromkeys(names))

    def _add_types(self, source: Source) -> None:
        from storage.datasets.readers.arrow_types import value_family
        from storage.datasets.readers.parquet import column_types

        types = column_types(source)
        self._add(types)
        for name in self.wanted.intersection(types):
            family = value_family(types[name])
            if family is None:
                continue
            file, earlier, shown = self._types.setdefault(
                name, (source.name, family, str(types[name]))
            )
            if earlier != family:
                raise InputNotUnderstood(
                    f"The column {name!r} is of type {shown} in {file}, and of type {types[name]} "
                    f"in {source.name}; write both as one type."
                )
