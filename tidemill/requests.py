"""From the rows of a plain input to the lines of a batch, as a stream.

Line n of the upload is row n of the input, blank lines included, so the line numbers in the
service's error reports are the input's own.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tidemill.client.client import Upload
from tidemill.errors import InputError, UsageError
from tidemill.inputs import CHAT, Kind, Row, Source, read_rows

COMPLETIONS = "/v1/completions"
PIECE_BYTES = 256 * 1024
MAX_DIGITS = 18


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """What every request of a plain input carries beside its prompt.

    Attributes:
        model: the model to ask; ``None`` leaves it to the service, whose default is ``smollm2``.
        system: a system message put before the prompt, unless the messages have one.
        sampling: parameters by their names in the API, e.g. ``{"max_tokens": 64}``.
        endpoint: ``/v1/chat/completions``, or ``/v1/completions`` to send prompts as they are,
            without the model's chat template.
        answer_column: the output's name for the answer.
    """

    model: str | None = None
    system: str | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    endpoint: str = CHAT
    answer_column: str = "answer"

    @property
    def given(self) -> bool:
        """Whether anything was asked for that only a plain input can carry."""
        return bool(self.model or self.system or self.sampling or self.endpoint != CHAT)


@dataclass(frozen=True, slots=True)
class AnswerColumns:
    """The names of the fields that an answered row gets."""

    answer: str
    finish_reason: str
    error: str

    @classmethod
    def named(cls, answer: str) -> "AnswerColumns":
        """``answer, finish_reason, error``, or all three marked by another name for the first."""
        if answer == "answer":
            return cls("answer", "finish_reason", "error")
        return cls(answer, f"{answer}_finish_reason", f"{answer}_error")

    @property
    def all(self) -> tuple[str, str, str]:
        """The three names, in the output's order."""
        return self.answer, self.finish_reason, self.error


def upload_of(source: Source, options: RequestOptions) -> Upload:
    """What to upload for an input: the file itself, or its rows as requests.

    Raises:
        UsageError: options for plain inputs, but the input holds whole requests.
        InputError: from the upload's chunks, where a row cannot be read.
    """
    if source.kind is Kind.OPENAI:
        if options.given:
            raise UsageError(
                f"{source.name} holds whole requests ({{custom_id, method, url, body}}), which "
                "name their model and parameters themselves; leave out --model, --system, "
                "--endpoint and the sampling options."
            )
        return Upload.from_path(source.path)
    if options.system and options.endpoint == COMPLETIONS:
        raise UsageError(f"--system needs chat messages; {COMPLETIONS} has none.")
    name = source.name.removesuffix(".gz").rsplit(".", 1)[0] + ".requests.jsonl"
    return Upload(name, lambda: _pieces(request_lines(source, options)))


def custom_id(source: Source, number: int) -> str:
    """The ``custom_id`` of a row."""
    return f"{'row' if source.kind is Kind.PARQUET else 'line'}-{number}"


def row_number(custom_id: str) -> int | None:
    """The row a ``custom_id`` of ours belongs to."""
    prefix, dash, digits = custom_id.partition("-")
    ours = bool(dash) and prefix in ("line", "row") and digits.isascii() and digits.isdecimal()
    return int(digits) if ours and len(digits) <= MAX_DIGITS else None


def request_lines(source: Source, options: RequestOptions) -> Iterator[bytes]:
    """The lines of the batch, each with its newline.

    A row without a prompt, or with one too deeply nested to be written, becomes a request without
    one, and a line that is no JSON object is passed on as it is; so that all of them come back as
    error lines with their number and reason.
    """
    reserved = frozenset(AnswerColumns.named(options.answer_column).all)
    written = 0
    for row in read_rows(source):
        yield b"\n" * (row.number - written - 1)
        written = row.number
        if clash := reserved & row.fields.keys():
            raise InputError(
                f"{source.name}, line {row.number} has a field {min(clash)!r} already, which the "
                "output needs for itself; name ours with --answer-column."
            )
        yield (row.raw if row.raw is not None else _request(source, row, options)) + b"\n"


def _request(source: Source, row: Row, options: RequestOptions) -> bytes:
    body: dict[str, Any] = {"model": options.model} if options.model else {}
    if options.endpoint == COMPLETIONS:
        if isinstance(row.prompt, str):
            body["prompt"] = row.prompt
    elif row.prompt is not None:
        body["messages"] = _messages(row, options.system)
    request = {
        "custom_id": custom_id(source, row.number),
        "method": "POST",
        "url": options.endpoint,
        "body": body | dict(options.sampling),
    }
    try:
        return msgspec.json.encode(request)
    except RecursionError:
        body.pop("messages", None)
        return msgspec.json.encode({**request, "body": body | dict(options.sampling)})


def _messages(row: Row, system: str | None) -> list[dict[str, Any]]:
    messages = (
        [{"role": "user", "content": row.prompt}] if isinstance(row.prompt, str) else row.prompt
    ) or []
    if system and not any(message.get("role") == "system" for message in messages):
        return [{"role": "system", "content": system}, *messages]
    return messages


def _pieces(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Lines joined to pieces worth a network write each."""
    piece = bytearray()
    for line in lines:
        piece += line
        if len(piece) >= PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)
