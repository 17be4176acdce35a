"""From a finished batch to the user's files: as the service wrote them, or joined to the input.

Formats: ``openai`` copies the batch's own lines; ``plain`` writes JSON lines of the input's fields
with the answer beside them; ``parquet`` the same as columns. A joined output is in the input's
order. Failed rows go to the errors file, and in Parquet stay in place with their error.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from tidemill.answers import read_answers
from tidemill.client.client import Client
from tidemill.client.shapes import Batch
from tidemill.errors import TidemillError
from tidemill.inputs import Kind, Source
from tidemill.join import Answers, Record, field_types, join_rows
from tidemill.requests import AnswerColumns
from tidemill.run.files import WholeFile
from tidemill.run.formats import Format
from tidemill.run.targets import Target


@dataclass(frozen=True, slots=True)
class Written:
    """The files that were written; ``None`` where there was nothing to write."""

    output: Path | None = None
    errors: Path | None = None


@dataclass(frozen=True, slots=True)
class _Results:
    """A finished batch's result files, each a stream of pieces."""

    outputs: Iterable[bytes]
    errors: Iterable[bytes]


def write_results(client: Client, batch: Batch, source: Source | None, target: Target) -> Written:
    """Download a finished batch's results and write them as the target says.

    A file that cannot be written whole is not left behind, and a file of the same name from an
    earlier run gives way.

    Args:
        source: the input to join the answers to; where it is ``None`` or holds whole requests,
            each answer stands beside its ``custom_id``.

    Raises:
        TidemillError: a file cannot be written.
        ClientError: the results cannot be read.
    """
    if batch.output_file_id is None and batch.error_file_id is None:
        return Written()
    if source is not None and source.kind is Kind.OPENAI:
        source = None
    try:
        return _write(client, batch, source, target)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise TidemillError(f"The results cannot be written: {error.strerror or error}.") from error


def _write(client: Client, batch: Batch, source: Source | None, target: Target) -> Written:
    with ExitStack() as stack:
        results = _Results(
            stack.enter_context(_download(client, batch.output_file_id)),
            stack.enter_context(_download(client, batch.error_file_id)),
        )
        output = stack.enter_context(WholeFile(target.output))
        errors = stack.enter_context(WholeFile(target.errors))
        if target.format is Format.OPENAI:
            output.write_all(results.outputs)
            errors.write_all(results.errors)
        elif target.format is Format.PLAIN:
            _write_plain(results, source, target.columns, output, errors)
        else:
            _write_parquet(results, source, target.columns, output)
            if target.errors is not None:
                with _download(client, batch.error_file_id) as pieces:
                    errors.write_all(pieces)
    return Written(output.kept, errors.kept)


def _write_plain(
    results: _Results,
    source: Source | None,
    columns: AnswerColumns,
    output: WholeFile,
    errors: WholeFile,
) -> None:
    if source is None:
        records = _unjoined(results.outputs)
        errors.write_all(results.errors)
    else:
        records = join_rows(source, results.outputs, results.errors)
    for record in records:
        answer = record.answer
        if answer.error is None:
            values = {columns.answer: answer.text, columns.finish_reason: answer.finish_reason}
            output.stream.write(_json_line({**record.fields, **values}))
        else:
            problem = msgspec.structs.replace(answer.error, line=answer.row)
            errors.stream.write(_json_line({**record.fields, columns.error: problem}))


def _write_parquet(
    results: _Results, source: Source | None, columns: AnswerColumns, output: WholeFile
) -> None:
    from tidemill.parquet import JoinedParquet, RecordParquet

    if source is not None and source.kind is Kind.PARQUET:
        answers = Answers(results.outputs, results.errors)
        JoinedParquet(source, columns).write(answers, output.stream)
        return
    types: dict[str, type] = {"custom_id": str} if source is None else field_types(source)
    types.update(dict.fromkeys(columns.all, str))
    if source is None:
        records = _unjoined(results.outputs)
    else:
        records = join_rows(source, results.outputs, results.errors)
    with RecordParquet(output.stream, types) as table:
        for record in records:
            error = record.answer.error.message if record.answer.error else None
            values = (record.answer.text, record.answer.finish_reason, error)
            table.write({**record.fields, **dict(zip(columns.all, values, strict=True))})


def _unjoined(outputs: Iterable[bytes]) -> Iterator[Record]:
    return (Record({"custom_id": answer.custom_id}, answer) for answer in read_answers(outputs))


def _download(client: Client, file_id: str | None) -> AbstractContextManager[Iterable[bytes]]:
    return client.download(file_id) if file_id else nullcontext(())


def _json_line(record: dict[str, Any]) -> bytes:
    # Values that JSON has no form for (a Parquet column may hold any) become text.
    return msgspec.json.encode(record, enc_hook=str) + b"\n"
