"""From the rows of a plain input to the lines of a batch, as a stream.

Line n of the batch's input is row n of the source, blank lines included, so the line numbers in the
service's error reports are the source's own.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from storage.datasets.readers.rows import read_rows
from storage.datasets.values.results import ResultColumns, check_names
from storage.datasets.values.rows import Row, custom_id
from storage.datasets.values.sources import Source
from storage.datasets.values.unsendable import with_problem
from storage.endpoints import CHAT_COMPLETIONS, COMPLETIONS
from storage.errors import RowFault

if TYPE_CHECKING:
    from storage.datasets.templates.row_template import RowTemplate


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
        template: makes the bodies, where no column holds prompts. What is given beside it comes
            before what it says.
    """

    model: str | None = None
    system: str | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    endpoint: str = CHAT_COMPLETIONS
    answer_column: str | None = None
    template: "RowTemplate | None" = None

    @property
    def given(self) -> bool:
        """Whether anything was asked for that only a plain input can carry."""
        other_endpoint = self.endpoint != CHAT_COMPLETIONS
        given = (self.model, self.system, self.sampling, self.template, other_endpoint)
        return any(map(bool, given))


def request_lines(source: Source, options: RequestOptions) -> Iterator[bytes]:
    """The lines of the batch, each with its newline.

    A row without a prompt becomes a request that carries the reason; so does a row that a template
    cannot be rendered with, or whose messages are nested too deeply to be written. A line that the
    service could not read as JSON is passed on as it is. All of these come back in the error file,
    with their number and the reason.

    Raises:
        InputNotUnderstood: the source cannot be read, or a row has a field that the output needs.
    """
    name = options.answer_column
    columns = None if name is None else ResultColumns.named(name)
    body_of: Callable[[Row], Mapping[str, Any]] = PromptBodies(source.column, options)
    if options.template is not None:
        body_of = TemplateBodies(options.template, options)
    written = 0
    for row in read_rows(source):
        yield b"\n" * (row.number - written - 1)
        written = row.number
        if columns is not None:
            check_names(source.name, row.number, row.fields, columns)
        request_id = custom_id(source.kind, row.number)
        yield request_line(row, request_id, options.endpoint, body_of) + b"\n"


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
            raise RowFault(f"The column {column!r} is null." if column else "There is no prompt.")
        if options.endpoint == COMPLETIONS and not isinstance(row.prompt, str):
            raise RowFault(
                f"The row holds messages, and {COMPLETIONS} takes a text; use {CHAT_COMPLETIONS}."
            )
        body: dict[str, Any] = {"model": options.model} if options.model else {}
        return body | _prompt(row, options) | dict(options.sampling)


@dataclass(frozen=True, slots=True)
class TemplateBodies:
    """Makes bodies of rows by a template; the options come before what it says."""

    template: "RowTemplate"
    options: RequestOptions

    def __call__(self, row: Row) -> dict[str, Any]:
        """The body of a row's request; `RowFault` where the template cannot be rendered with it."""
        options = self.options
        body = self.template.body(row.fields, options.endpoint)
        messages = body.get("messages")
        if options.system and isinstance(messages, list):
            body = {**body, "messages": with_system(messages, options.system)}
        model = {"model": options.model} if options.model else {}
        return {**body, **model, **options.sampling}


def _prompt(row: Row, options: RequestOptions) -> dict[str, Any]:
    if options.endpoint == COMPLETIONS:
        return {"prompt": row.prompt}
    messages = (
        [{"role": "user", "content": row.prompt}] if isinstance(row.prompt, str) else row.prompt
    ) or []
    return {"messages": with_system(messages, options.system) if options.system else messages}


def with_system(messages: list[Any], system: str) -> list[Any]:
    """Messages with a system message before them, unless they have one."""
    if any(isinstance(each, dict) and each.get("role") == "system" for each in messages):
        return messages
    return [{"role": "system", "content": system}, *messages]
