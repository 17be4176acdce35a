"""From the rows of a plain input to the lines of a batch, as a stream.

Line n of the batch's input is row n of the source, blank lines included, so the line numbers in the
service's error reports are the source's own.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from storage.datasets.readers.rows import read_rows
from storage.datasets.values.results import ResultColumns, check_names
from storage.datasets.values.rows import Row, custom_id
from storage.datasets.values.sources import Source
from storage.datasets.values.unsendable import with_problem
from storage.endpoints import CHAT_COMPLETIONS, COMPLETIONS
from storage.errors import RowFault


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """What every request of a plain input carries beside its prompt.

    Attributes:
        model: the model to ask; ``None`` leaves it to the service, whose default is ``smollm2``.
        system: a system message put before the prompt, unless the messages have one.
        sampling: parameters by their names in the API, e.g. ``{"max_tokens": 64}``.
        endpoint: ``/v1/chat/completions``, or ``/v1/completions`` to send prompts as they are,
            without the model's chat template.
        answer_column: the output's name for the answer, which no row may use itself; ``None`` where
            no output is to have the rows' own fields.
    """

    model: str | None = None
    system: str | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    endpoint: str = CHAT_COMPLETIONS
    answer_column: str | None = None

    @property
    def given(self) -> bool:
        """Whether anything was asked for that only a plain input can carry."""
        other_endpoint = self.endpoint != CHAT_COMPLETIONS
        return bool(self.model or self.system or self.sampling or other_endpoint)


def request_lines(source: Source, options: RequestOptions) -> Iterator[bytes]:
    """The lines of the batch, each with its newline.

    A row without a prompt becomes a request that carries the reason; so does a row whose messages
    are nested too deeply to be written. A line that the service could not read as JSON is passed on
    as it is. All of these come back in the error file, with their number and the reason.

    Raises:
        InputNotUnderstood: the source cannot be read, or a row has a field that the output needs.
    """
    name = options.answer_column
    columns = None if name is None else ResultColumns.named(name)
    bodies = PromptBodies(source.column, options)
    written = 0
    for row in read_rows(source):
        yield b"\n" * (row.number - written - 1)
        written = row.number
        if columns is not None:
            check_names(source.name, row.number, row.fields, columns)
        request_id = custom_id(source.kind, row.number)
        yield request_line(row, request_id, options.endpoint, bodies) + b"\n"


def request_line(
    row: Row,
    request_id: str | None,
    endpoint: str,
    body_of: Callable[[Row], Mapping[str, Any]],
    param: str | None = None,
) -> bytes:
    """The line of a row, without a newline.

    Args:
        body_of: makes the body of the request; `RowFault` says why it cannot.
        param: what asks for such a body, for the reason.
    """
    if row.raw is not None:
        return row.raw
    request = {"custom_id": request_id, "method": "POST", "url": endpoint}
    problem = row.problem
    if problem is not None:
        param = row.param
    else:
        try:
            return msgspec.json.encode({**request, "body": body_of(row)})
        except RowFault as fault:
            problem = str(fault)
        except RecursionError:
            problem = "The messages are nested too deeply."
    return msgspec.json.encode(with_problem({**request, "body": {}}, problem, param))


@dataclass(frozen=True, slots=True)
class PromptBodies:
    """Makes bodies of rows that have a prompt or messages.

    Args:
        column: the column with the prompts, where the rows have columns.
    """

    column: str | None
    options: RequestOptions

    def __call__(self, row: Row) -> dict[str, Any]:
        """The body of a row's request; `RowFault` where it has no prompt that can be sent."""
        options = self.options
        if row.prompt is None:
            column = self.column
            raise RowFault(
                f"The column {column!r} is null." if column else "There is no prompt."
            )
        if options.endpoint == COMPLETIONS and not isinstance(row.prompt, str):
            raise RowFault(
                f"The row holds messages, and {COMPLETIONS} takes a text; use {CHAT_COMPLETIONS}."
            )
        body: dict[str, Any] = {"model": options.model} if options.model else {}
        return body | _prompt(row, options) | dict(options.sampling)


def _prompt(row: Row, options: RequestOptions) -> dict[str, Any]:
    if options.endpoint == COMPLETIONS:
        return {"prompt": row.prompt}
    return {"messages": _messages(row, options.system)}


def _messages(row: Row, system: str | None) -> list[dict[str, Any]]:
    messages = (
        [{"role": "user", "content": row.prompt}] if isinstance(row.prompt, str) else row.prompt
    ) or []
    if system and not any(message.get("role") == "system" for message in messages):
        return [{"role": "system", "content": system}, *messages]
    return messages
