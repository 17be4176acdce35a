"""Shards: what the input says of rows, kept as the plan is made, and the results beside it later.

The rows of a shard are kept as a Parquet file of their ``custom_id`` and the columns that are
passed through. A shard has these columns, and those of `RESULT_COLUMNS`; it is made of nothing but
the rows and their results, so that it is the same whoever writes it, however often.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, BinaryIO, cast

import msgspec
import pyarrow as pa

from storage.datasets.readers.arrow_values import json_values
from storage.datasets.readers.parquet_batches import FEW_ROWS, read_batches, schema_of
from storage.datasets.values.json_text import json_bytes
from storage.datasets.values.output_options import (
    COUNT_COLUMNS,
    CUSTOM_ID,
    ERROR_COLUMNS,
    RESULT_COLUMNS,
    TEXT_COLUMNS,
    OutputFormat,
)
from storage.datasets.values.sources import Source
from storage.datasets.writers.row_groups import row_groups
from storage.errors import ResultNotUnderstood
from storage.objects import ObjectWriter

RESULT_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in TEXT_COLUMNS),
        *((name, pa.int64()) for name in COUNT_COLUMNS),
        *((name, pa.string()) for name in ERROR_COLUMNS),
    ]
)


def rows_schema(passed: pa.Schema | None) -> pa.Schema:
    """The columns of rows with these that are passed through."""
    return pa.schema([pa.field(CUSTOM_ID, pa.string()), *(passed or ())])


def shard_columns(passed: pa.Schema | None) -> list[dict[str, str]]:
    """The columns of a shard, for people and the manifest."""
    fields = [*rows_schema(passed), *RESULT_SCHEMA]
    return [{"name": field.name, "type": str(field.type)} for field in fields]


def write_rows(
    writer: ObjectWriter,
    custom_ids: Sequence[str | None],
    passed: pa.Schema | None,
    batches: Iterable[pa.RecordBatch],
    heartbeat: Callable[[], None],
) -> None:
    """Write what the input says of some rows.

    Args:
        passed: the columns that are passed through, of which ``batches`` has the rows' values.
    """
    if passed is None:
        counts = (min(FEW_ROWS, len(custom_ids) - at) for at in range(0, len(custom_ids), FEW_ROWS))
        batches = map(_nothing, counts)
    at = 0
    with row_groups(_sink(writer), rows_schema(passed)) as groups:
        for batch in batches:
            heartbeat()
            ids = pa.array(custom_ids[at : at + batch.num_rows], pa.string())
            at += batch.num_rows
            groups.add([ids, *(batch.columns if passed is not None else ())])


def write_shard(
    rows: Source, results: Iterator[bytes], kind: OutputFormat, writer: ObjectWriter
) -> int:
    """Write a shard; how many rows it has.

    Args:
        rows: as `write_rows` has written them.
        results: the rows' lines of the output and error files, in the rows' order.

    Raises:
        ResultNotUnderstood: there are more or fewer results, or of other rows.
    """
    if kind is OutputFormat.PARQUET:
        count = _write_parquet(rows, results, writer)
    else:
        count = _write_json_lines(rows, results, writer)
    if next(results, None) is not None:
        raise ResultNotUnderstood("There are more results than rows.")
    return count


def _write_parquet(rows: Source, results: Iterator[bytes], writer: ObjectWriter) -> int:
    count = 0
    schema = pa.schema([*schema_of(rows), *RESULT_SCHEMA])
    with row_groups(_sink(writer), schema) as groups:
        for batch in read_batches(rows):
            count += batch.num_rows
            values = list(zip(*_results_of(batch, results), strict=True))
            arrays = [
                pa.array(column, field.type)
                for column, field in zip(values, RESULT_SCHEMA, strict=True)
            ]
            groups.add([*batch.columns, *arrays])
    return count


def _write_json_lines(rows: Source, results: Iterator[bytes], writer: ObjectWriter) -> int:
    count = 0
    names = [*schema_of(rows).names, *RESULT_COLUMNS]
    for batch in read_batches(rows):
        count += batch.num_rows
        columns = zip(*(json_values(column) for column in batch.columns), strict=True)
        found = _results_of(batch, results)
        for own, values in zip(columns, found, strict=True):
            line = dict(zip(names, (*own, *values), strict=True))
            writer.write(json_bytes(line) + b"\n")
    return count


def _results_of(batch: pa.RecordBatch, results: Iterator[bytes]) -> list[tuple[Any, ...]]:
    """The values of `RESULT_COLUMNS` for each row of a batch."""
    ids = batch.column(0).to_pylist()
    found = [_line_of(text) for text in islice(results, len(ids))]
    if [line.custom_id for line in found] != ids:
        raise ResultNotUnderstood("The results are not those of the rows.")
    return [line.values() for line in found]


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    finish_reason: str | None = None
    message: _Message | None = None
    text: str | None = None


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None


class _Error(msgspec.Struct):
    code: str | None = None
    message: str | None = None


class _Body(msgspec.Struct):
    choices: list[_Choice] = msgspec.field(default_factory=list)
    usage: _Usage | None = None
    error: _Error | None = None


class _Response(msgspec.Struct):
    body: _Body


class _Line(msgspec.Struct):
    custom_id: str | None = None
    response: _Response | None = None
    error: _Error | None = None

    def values(self) -> tuple[Any, ...]:
        """In the order of `RESULT_COLUMNS`; of several choices, the first one's."""
        body = self.response.body if self.response else _Body()
        error = self.error or body.error or _Error()
        choice = body.choices[0] if body.choices else _Choice()
        text = choice.message.content if choice.message else choice.text
        usage = body.usage or _Usage()
        cached = (usage.prompt_tokens_details or _Details()).cached_tokens
        counts = (usage.prompt_tokens, cached, usage.completion_tokens)
        return (text, choice.finish_reason, *counts, error.code, error.message)


_decoder = msgspec.json.Decoder(_Line)


def _line_of(text: bytes) -> _Line:
    try:
        return _decoder.decode(text)
    except msgspec.MsgspecError as error:
        raise ResultNotUnderstood() from error


def _nothing(count: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.nulls(count)], names=[""])


class _Sink(io.RawIOBase):
    """An object being written as Arrow writes files; closing it ends nothing."""

    def __init__(self, writer: ObjectWriter) -> None:
        self._writer = writer

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._writer.write(bytes(data))


def _sink(writer: ObjectWriter) -> BinaryIO:
    return cast(BinaryIO, _Sink(writer))
