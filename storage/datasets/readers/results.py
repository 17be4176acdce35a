"""The lines of a batch's output and error files, read as results."""

from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Struct, field

from storage.datasets.values.origins import Origin
from storage.datasets.values.results import Result, ResultError
from storage.datasets.values.rows import row_number
from storage.errors import ResultNotUnderstood
from storage.streams.lines import is_blank_bytes


class _Message(Struct):
    content: str | None = None


class _Choice(Struct):
    finish_reason: str | None = None
    message: _Message | None = None
    text: str | None = None


class _Body(Struct):
    choices: list[_Choice] = field(default_factory=list)
    error: ResultError | None = None


class _Response(Struct):
    status_code: int
    body: _Body


class _Extension(Struct):
    line: int | None = None
    file: str | None = None
    row: int = 0


class _Line(Struct):
    custom_id: str | None = None
    response: _Response | None = None
    error: ResultError | None = None
    tidemill: _Extension = field(default_factory=_Extension)


def read_results(pieces: Iterable[bytes]) -> Iterator[Result]:
    """The results of an output or error file that arrives in pieces, in the file's order.

    Raises:
        ResultNotUnderstood: a line is not a result.
    """
    decoder = msgspec.json.Decoder(_Line)
    for line in _lines(pieces):
        try:
            yield _result(decoder.decode(line))
        except msgspec.MsgspecError as error:
            raise ResultNotUnderstood from error


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a stream that are not blank, without their newlines."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line for line in lines if not is_blank_bytes(line))
    if not is_blank_bytes(rest):
        yield rest


def _result(line: _Line) -> Result:
    body = line.response.body if line.response else _Body()
    problem = line.error or body.error
    row = row_number(line.custom_id) if line.custom_id else None
    if problem is not None:
        error = ResultError(problem.code, problem.message, problem.param)
        # Earlier versions wrote the number into the error.
        ours = line.tidemill
        if ours.file is not None:  # the lines of a dataset are numbered over all of its files
            return Result(line.custom_id, row, None, None, error, Origin(ours.file, ours.row))
        row = row or ours.line or problem.line
        return Result(line.custom_id, row, None, None, error)
    if not body.choices:
        return Result(line.custom_id, row, None, None, None)
    choice = body.choices[0]
    text = choice.message.content if choice.message else choice.text
    return Result(line.custom_id, row, text, choice.finish_reason, None)
