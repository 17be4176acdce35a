"""The rows of a plain input, whatever its kind."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from storage.datasets.readers.delimited import (
    read_delimited_records,
    read_delimited_rows,
    read_header,
)
from storage.datasets.readers.json_lines import json_record, json_row
from storage.datasets.readers.text import text_row
from storage.datasets.readers.unpacked import open_unpacked
from storage.datasets.values.rows import Row
from storage.datasets.values.sources import Kind, Source
from storage.streams.jsonl import Line, read_lines


def read_rows(source: Source, beside: Collection[str] | None = None) -> Iterator[Row]:
    """The rows of a plain input, as a stream; a line that cannot be read is a row with a problem.

    Blank lines (`storage.streams.lines`) are passed over. Where a template takes the rows, they are
    those of `read_records`.

    Args:
        beside: the columns whose values are wanted beside the prompt; ``None`` leaves it to the
            kind, and Parquet is then read whole.

    Raises:
        InputNotUnderstood: a compressed or Parquet file is damaged, or holds more than the limit;
            a CSV file has no header with the prompts' column.
    """
    if source.columns is not None:
        yield from read_records(source, source.columns)
        return
    if source.kind is Kind.PARQUET:
        from storage.datasets.readers.parquet import read_parquet_rows

        yield from read_parquet_rows(source, beside)
        return
    with open_unpacked(source.file, source.name, source.limits) as stream:
        if source.kind.delimited:
            yield from read_delimited_rows(stream, source)
            return
        for line in read_lines(stream, max_line_bytes=source.limits.max_line_bytes):
            if line.error is not None:
                yield _too_long(line)
            elif source.kind is Kind.TEXT:
                yield text_row(line.number, line.data)
            else:
                yield json_row(line.number, line.data, source.column)


def read_records(source: Source, columns: Collection[str]) -> Iterator[Row]:
    """The rows with the values of these columns, as far as they have them, and without prompts.

    Raises:
        InputNotUnderstood: as `read_rows`; a CSV file needs no column of the prompts.
    """
    if source.kind is Kind.PARQUET:
        from storage.datasets.readers.parquet import read_parquet_records

        yield from read_parquet_records(source, columns)
        return
    with open_unpacked(source.file, source.name, source.limits) as stream:
        if source.kind.delimited:
            yield from read_delimited_records(stream, source, columns)
            return
        for line in read_lines(stream, max_line_bytes=source.limits.max_line_bytes):
            if line.error is not None:
                yield _too_long(line)
            elif source.kind is Kind.TEXT:
                yield text_row(line.number, line.data)
            else:
                yield json_record(line.number, line.data, columns)


def _too_long(line: Line) -> Row:
    return Row(line.number, None, {}, problem=str(line.error))


def has_rows(source: Source) -> bool:
    """Whether there is any row; `InputNotUnderstood` as `read_rows`."""
    return next(read_rows(source), None) is not None


def read_fields(source: Source) -> Iterator[tuple[int, Mapping[str, Any], str | None]]:
    """Every row's number, all of its fields, and why it could not be sent, if that is so.

    Raises:
        InputNotUnderstood: as `read_rows`.
    """
    if source.kind is Kind.PARQUET:
        from storage.datasets.readers.parquet import read_parquet_fields

        for number, fields in enumerate(read_parquet_fields(source), 1):
            yield number, fields, None
        return
    rows = read_rows(source)
    if source.columns is not None and source.kind.delimited:
        with open_unpacked(source.file, source.name, source.limits) as stream:
            rows = read_records(source, read_header(stream, source))
    for row in rows:
        yield row.number, row.fields, row.problem
