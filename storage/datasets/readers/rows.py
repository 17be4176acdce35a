"""The rows of a plain input, whatever its kind."""

from collections.abc import Iterator, Mapping
from typing import Any

from storage.datasets.readers.delimited import read_delimited_rows
from storage.datasets.readers.json_lines import json_row
from storage.datasets.readers.text import text_row
from storage.datasets.readers.unpacked import open_unpacked
from storage.datasets.values.rows import Row
from storage.datasets.values.sources import Kind, Source
from storage.streams.jsonl import read_lines


def read_rows(source: Source) -> Iterator[Row]:
    """The rows of a plain input, as a stream; a line that cannot be read is a row with a problem.

    Blank lines (`storage.streams.lines`) are passed over.

    Raises:
        InputNotUnderstood: a compressed or Parquet file is damaged, or holds more than the limit;
            a CSV file has no header with the prompts' column.
    """
    if source.kind is Kind.PARQUET:
        from storage.datasets.readers.parquet import read_parquet_rows

        yield from read_parquet_rows(source)
        return
    limits = source.limits
    with open_unpacked(source.path, source.name, limits) as stream:
        if source.kind.delimited:
            yield from read_delimited_rows(stream, source)
            return
        for line in read_lines(stream, max_line_bytes=limits.max_line_bytes):
            if line.error is not None:
                yield Row(line.number, None, {}, problem=str(line.error))
            elif source.kind is Kind.TEXT:
                yield text_row(line.number, line.data)
            else:
                yield json_row(line.number, line.data, source.column)


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
    else:
        for row in read_rows(source):
            yield row.number, row.fields, row.problem
