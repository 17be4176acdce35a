"""From the files of a dataset to the lines of a batch, as a stream, numbered over all files."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from storage.datasets.dataset_columns import KEY_PARAM, DatasetColumns
from storage.datasets.readers.kinds import kind_named, open_source, open_table
from storage.datasets.readers.rows import read_records, read_rows
from storage.datasets.readers.unpacked import open_unpacked
from storage.datasets.request_lines import PromptBodies, RequestOptions, request_line
from storage.datasets.templates.row_template import RowTemplate
from storage.datasets.values.dataset_options import DatasetOptions
from storage.datasets.values.files import DataFile
from storage.datasets.values.origins import Origins
from storage.datasets.values.rows import Row
from storage.datasets.values.sources import Kind, Limits, Source
from storage.errors import EmptyInput, InputNotUnderstood, LineTooLong, TooManyLines
from storage.streams.json_faults import json_kind
from storage.streams.jsonl import Line, read_lines

TEMPLATE_PARAM = "tidemill.template"
TABLES = frozenset({Kind.PARQUET, Kind.CSV, Kind.TSV})


@dataclass(frozen=True, slots=True)
class DatasetFile:
    """One file of a dataset.

    Attributes:
        name: what to call it in messages and reports.
        partitions: the columns that its folders spell.
    """

    name: str
    size: int
    content: DataFile
    partitions: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dataset:
    """Files whose rows become requests.

    Attributes:
        files: gives the files, as often as it is called.
        max_lines: most rows.
        origins: is told where the lines of each file begin.
        heartbeat: called for every file, and for every piece of one that is read; it raises to
            end the reading.
    """

    files: Callable[[], Iterable[DatasetFile]]
    options: DatasetOptions
    endpoint: str
    limits: Limits
    max_lines: int
    origins: Origins
    heartbeat: Callable[[], None] = lambda: None

    def lines(self) -> Iterator[Line]:
        """Every row as a line of the batch; a row that cannot be sent carries the reason.

        Raises:
            InputNotUnderstood: a file cannot be read, or is another table than those before it.
            InputModified: a file was changed or deleted.
            TemplateError: the template or the key reads a column that there is not.
            TooManyLines: there are too many rows.
        """
        reading = _Reading(self)
        self.origins.clear()
        number = 0
        for file, source in reading.sources():
            self.origins.add(number + 1, file.name)
            for line in reading.lines(file, source, number):
                number = line.number
                if number > self.max_lines:
                    raise TooManyLines(f"There are more than {self.max_lines} rows.")
                yield line
        reading.columns.check()

    def sources(self) -> Iterator[tuple[DatasetFile, Source]]:
        """The files that have anything in them, each with what `lines` reads it as.

        Raises:
            DatasetError: as `lines`.
        """
        yield from _Reading(self).sources()


class _Reading:
    """One pass over a dataset."""

    def __init__(self, dataset: Dataset) -> None:
        options = dataset.options
        self._dataset = dataset
        self._template = None if options.template is None else RowTemplate.parse(options.template)
        self._param = None if self._template is None else TEMPLATE_PARAM
        self._limits = replace(dataset.limits, heartbeat=dataset.heartbeat)
        self._first: Source | None = None
        self.columns = DatasetColumns(self._template, options.key)

    def sources(self) -> Iterator[tuple[DatasetFile, Source]]:
        """The files that have anything in them, each with what it is to be read as."""
        for file, source in self._met():
            if self.columns.missing and not self.columns.by_row:
                self._look_ahead()
            yield file, source

    def _look_ahead(self) -> None:
        """Find the columns that no file had so far in those that follow."""
        for _ in self._met():
            if not self.columns.missing:
                return
        self.columns.check()

    def _met(self) -> Iterator[tuple[DatasetFile, Source]]:
        for file in self._dataset.files():
            self._dataset.heartbeat()
            try:
                source = self._source(file)
                self.columns.add_table(source, file.partitions)
            except EmptyInput:
                continue
            yield file, source

    def _source(self, file: DatasetFile) -> Source:
        """What a file is to be read as: the kind of the first one is that of all."""
        if not file.size:
            raise EmptyInput
        options, first = self._dataset.options, self._first
        kind = options.format if first is None else first.kind
        if kind is None and (named := kind_named(file.name)) in TABLES:
            kind = named  # a table is what its name says, or an error
        if first is not None and not self._differs(first.kind):
            return replace(first, file=file.content, name=file.name)
        if self._template is None:
            source = open_source(
                file.content,
                name=file.name,
                column=options.column,
                kind=kind,
                limits=self._limits,
                written_again=False,
            )
        else:
            wanted = self.columns.wanted
            source = open_table(file.content, file.name, wanted, kind=kind, limits=self._limits)
        self._first = first or source
        return source

    def _differs(self, kind: Kind) -> bool:
        """Whether each file of a kind says for itself where its prompts are, or its fields."""
        return kind.delimited or (kind is Kind.PARQUET and self._template is None)

    def lines(self, file: DatasetFile, source: Source, before: int) -> Iterator[Line]:
        """The lines of one file, after so many of others."""
        if source.kind is Kind.REQUESTS:
            yield from self._requests(source, before)
            return
        key, endpoint = self._dataset.options.key, self._dataset.endpoint
        limit = source.limits.max_line_bytes
        body_of = self._bodies(source)
        spelled = {k: v for k, v in file.partitions.items() if k in self.columns.wanted}
        for count, row in enumerate(self._rows(source), 1):
            if spelled:
                row = msgspec.structs.replace(row, fields={**row.fields, **spelled})
            self.columns.add_row(row.fields)
            number = before + count
            request_id: str | None = f"row-{number}"
            if row.problem is not None and row.number != count:
                problem = f"{row.problem} It is on line {row.number}."
                row = msgspec.structs.replace(row, problem=problem)
            if key is not None:
                request_id, row = _keyed(row, key)
            data = request_line(row, request_id, endpoint, body_of, self._param)
            if len(data) <= limit:
                yield Line(number, data)
            else:
                text = f"The row makes a request that is longer than {limit} bytes."
                yield Line(number, b"", LineTooLong(text))

    def _rows(self, source: Source) -> Iterator[Row]:
        if self._template is not None:
            return read_records(source, self.columns.wanted)
        return read_rows(source, self.columns.wanted)

    def _bodies(self, source: Source) -> Callable[[Row], Mapping[str, Any]]:
        template, endpoint = self._template, self._dataset.endpoint
        if template is None:
            return PromptBodies(source.column, RequestOptions(endpoint=endpoint))
        return lambda row: template.body(row.fields, endpoint)

    def _requests(self, source: Source, before: int) -> Iterator[Line]:
        if self.columns.wanted:
            raise InputNotUnderstood(
                f"{source.name} holds whole requests, which have their custom_id; leave "
                f"{KEY_PARAM} out, or say that it holds rows (tidemill.input_format: jsonl)."
            )
        with open_unpacked(source.file, source.name, source.limits) as stream:
            lines = read_lines(stream, max_line_bytes=source.limits.max_line_bytes)
            for number, line in enumerate(lines, before + 1):
                yield replace(line, number=number)


def _keyed(row: Row, key: str) -> tuple[str | None, Row]:
    """The ``custom_id`` that a row has in its key column; without one the row cannot be sent."""
    value = row.fields.get(key)
    if isinstance(value, str) and value:
        return value, row
    if isinstance(value, int | float) and not isinstance(value, bool):
        return msgspec.json.encode(value).decode(), row
    if isinstance(value, msgspec.Raw):
        return bytes(value).decode(), row
    if row.problem is None:
        what = "empty" if value == "" else json_kind(value)
        problem = f"The key column {key!r} is {what}; a custom_id is a text or a number."
        row = msgspec.structs.replace(row, problem=problem, param=KEY_PARAM)
    return None, row
