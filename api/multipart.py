"""multipart/form-data as a stream of events, in constant memory.

`starlette.Request.form` would first write the whole file to a temporary one.
"""

from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from api.errors import ApiError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_HEADER_BYTES = 8 * 1024


@dataclass(frozen=True)
class FieldBegin:
    """A field's headers were read; ``filename`` is `None` where the field is no file."""

    name: str
    filename: str | None


@dataclass(frozen=True)
class FieldData:
    """A piece of the current field."""

    data: bytes


@dataclass(frozen=True)
class FieldEnd:
    """The current field is complete."""


Event = FieldBegin | FieldData | FieldEnd


def malformed() -> ApiError:
    """The body is not a complete multipart form: 400."""
    return ApiError(
        400,
        "The request body must be a complete multipart/form-data form.",
        code="invalid_multipart",
    )


def too_many_fields(limit: int) -> ApiError:
    """The form has more fields than the configured cap: 413."""
    return ApiError(413, f"The form has more than {limit} fields.", code="request_too_large")


class _Collector:
    """The parser's callbacks, turned into a list of events; ``max_fields`` may begin."""

    def __init__(self, max_fields: int) -> None:
        self._max_fields = max_fields
        self._fields = 0
        self.events: list[Event] = []
        self.complete = False
        self._header_name = b""
        self._header_value = b""
        self._disposition = b""

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin_field,
            "on_header_field": self._header_field,
            "on_header_value": self._header_data,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._take_data,
            "on_part_end": lambda: self.events.append(FieldEnd()),
            "on_end": self._end,
        }

    def _begin_field(self) -> None:
        self._disposition = b""
        self._fields += 1
        if self._fields > self._max_fields:
            raise too_many_fields(self._max_fields)

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _header_data(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]
        if len(self._header_value) > MAX_HEADER_BYTES:
            raise malformed()

    def _header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise malformed()
        name = options[b"name"].decode(errors="replace")
        filename = options.get(b"filename")
        self.events.append(
            FieldBegin(name, None if filename is None else filename.decode(errors="replace"))
        )

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        self.events.append(FieldData(data[start:end]))

    def _end(self) -> None:
        self.complete = True


def _parser(content_type: str, collector: _Collector) -> MultipartParser:
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise malformed()
    try:
        return MultipartParser(boundary, collector.callbacks())
    except FormParserError:  # a boundary longer than the standard allows
        raise malformed() from None


async def read_events(
    content_type: str, body: AsyncIterable[bytes], *, max_fields: int
) -> AsyncIterator[Event]:
    """Parse ``body`` as it arrives.

    Args:
        content_type: the header's value, with the boundary.
        body: pieces of the body, of any size.
        max_fields: most fields that the form may have, files among them.

    Raises:
        ApiError: 400 where this is not a multipart form, or one that ends too early; 413 where it
            has too many fields.
    """
    collector = _Collector(max_fields)
    parser = _parser(content_type, collector)
    async for piece in body:
        try:
            parser.write(piece)
        except FormParserError:
            raise malformed() from None
        events, collector.events = collector.events, []
        for event in events:
            yield event
    if not collector.complete:
        raise malformed()
