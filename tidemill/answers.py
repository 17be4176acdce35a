"""The lines of a batch's output and error files, read as answers."""

from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Struct, field

from tidemill.errors import ClientError
from tidemill.requests import row_number


class _Message(Struct):
    content: str | None = None


class _Choice(Struct):
    finish_reason: str | None = None
    message: _Message | None = None
    text: str | None = None


class Problem(Struct, frozen=True):
    """Why a row failed. ``line`` is our own addition to lines whose custom_id cannot be read."""

    code: str | None = None
    message: str | None = None
    param: str | None = None
    line: int | None = None


class _Body(Struct):
    choices: list[_Choice] = field(default_factory=list)
    error: Problem | None = None


class _Response(Struct):
    status_code: int
    body: _Body


class _Line(Struct):
    custom_id: str | None = None
    response: _Response | None = None
    error: Problem | None = None


class Answer(Struct, frozen=True):
    """What became of one row.

    Attributes:
        row: the row of the plain input it belongs to; ``None`` where the line does not tell.
        text: the first choice's text; ``None`` where the row failed.
        error: why it failed.
    """

    custom_id: str | None
    row: int | None
    text: str | None
    finish_reason: str | None
    error: Problem | None


def read_answers(pieces: Iterable[bytes]) -> Iterator[Answer]:
    """The answers of an output or error file that arrives in pieces, in the file's order."""
    decoder = msgspec.json.Decoder(_Line)
    for line in split_lines(pieces):
        try:
            yield _answer(decoder.decode(line))
        except msgspec.MsgspecError as error:
            raise ClientError(
                "The service's result file holds a line that is no result."
            ) from error


def split_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The non-empty lines of a stream of bytes, without their newlines."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from filter(None, lines)
    if rest:
        yield rest


def _answer(line: _Line) -> Answer:
    body = line.response.body if line.response else _Body()
    problem = line.error or body.error
    row = row_number(line.custom_id) if line.custom_id else None
    if problem is not None:
        error = Problem(problem.code, problem.message, problem.param)
        return Answer(line.custom_id, row or problem.line, None, None, error)
    if not body.choices:
        return Answer(line.custom_id, row, None, None, None)
    choice = body.choices[0]
    text = choice.message.content if choice.message else choice.text
    return Answer(line.custom_id, row, text, choice.finish_reason, None)
