"""Records as JSON lines: the answered ones in one file, the failed ones in another."""

from collections.abc import Iterable
from typing import Any, BinaryIO

import msgspec

from storage.datasets.values.json_text import json_bytes
from storage.datasets.values.results import Record, ResultColumns


def write_json_lines(
    records: Iterable[Record], columns: ResultColumns, output: BinaryIO, errors: BinaryIO
) -> None:
    """Write every record's fields with its answer to ``output``, or with its error to
    ``errors``."""
    for record in records:
        result = record.result
        if result.error is None:
            values = {columns.answer: result.text, columns.finish_reason: result.finish_reason}
            output.write(_line({**record.fields, **values}))
        else:
            error = msgspec.structs.replace(result.error, line=result.row)
            errors.write(_line({**record.fields, columns.error: error}))


def _line(fields: dict[str, Any]) -> bytes:
    return json_bytes(fields) + b"\n"
