"""From the socket to the object store: an upload, in constant memory."""

import re
import unicodedata
from collections.abc import AsyncIterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from anyio import to_thread
from pydantic import ValidationError

from api.errors import ApiError, file_too_large, from_validation, invalid_value, missing_parameter
from api.multipart import FieldBegin, FieldData, FieldEnd, read_events
from api.schemas.files import FileForm
from api.threads import in_thread
from storage.objects import ObjectInfo, ObjectStore, ObjectWriter
from storage.settings import ApiSettings

READ_BYTES = 1024 * 1024
MAX_FIELD_BYTES = 64 * 1024
MAX_FILENAME = 255
_NUMBER = re.compile(r"[0-9]{1,18}\Z")


@dataclass(frozen=True)
class Upload:
    """A file in the object store, and the form's other fields."""

    filename: str
    form: FileForm
    info: ObjectInfo
    sha256: str


class _Sink:
    """Collects what comes and writes it to the store in pieces, each in a worker thread.

    The caller waits for each piece, so a slow store slows the client down and memory stays
    constant. A slow client occupies no thread.
    """

    def __init__(self, filename: str, writer: ObjectWriter, limit: int) -> None:
        self.filename = filename
        self.writer = writer
        self._limit = limit
        self._buffer = bytearray()
        self._received = 0

    async def add(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > self._limit:
            raise file_too_large(self._limit)
        self._buffer += data
        if len(self._buffer) >= READ_BYTES:
            await self.flush()

    async def flush(self) -> None:
        piece = bytes(self._buffer)
        self._buffer.clear()
        await to_thread.run_sync(self.writer.write, piece)


class _Fields:
    """The form's fields that are no file: few and short."""

    def __init__(self) -> None:
        self.values: dict[str, bytearray] = {}
        self._current = bytearray()
        self._size = 0

    def begin(self, name: str) -> "_Fields":
        self._grow(len(name))
        self._current = self.values.setdefault(name, bytearray())
        return self

    async def add(self, data: bytes) -> None:
        self._grow(len(data))
        self._current += data

    def check_purpose(self) -> None:
        """Refuse a wrong purpose, where it was sent before the file."""
        if "purpose" in self.values:
            parse_form({"purpose": self.values["purpose"]})

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > MAX_FIELD_BYTES:
            raise ApiError(413, "The form's fields are too large.", code="request_too_large")


async def store_upload(
    content_type: str,
    body: AsyncIterable[bytes],
    store: ObjectStore,
    key: str,
    settings: ApiSettings,
) -> Upload:
    """Read a ``POST /v1/files`` form and put its file at ``key``.

    The fields may come before or after the file. The object becomes visible once the whole form was
    read and is valid; on any error before that, nothing is stored.

    Raises:
        ApiError: 400 for a form that is malformed or lacks a field, 413 for one that is too large
            for ``settings``.
        storage.errors.StorageError: the store failed.
    """
    async with AsyncExitStack() as stack:
        fields = _Fields()
        sink: _Sink | None = None
        current: _Sink | _Fields = fields
        events = read_events(content_type, body, max_fields=settings.max_form_fields)
        async for event in events:
            match event:
                case FieldBegin("file", filename):
                    if sink is not None:
                        raise invalid_value("Exactly one file is expected.", "file")
                    fields.check_purpose()
                    writer = await stack.enter_async_context(in_thread(store.writer(key)))
                    current = sink = _Sink(
                        clean_filename(filename), writer, settings.max_file_bytes
                    )
                case FieldBegin(name, _):
                    current = fields.begin(name)
                case FieldData(data):
                    await current.add(data)
                case FieldEnd():
                    current = fields
        if sink is None:
            raise missing_parameter("file")
        form = parse_form(fields.values)
        await sink.flush()
    return Upload(sink.filename, form, sink.writer.info, sink.writer.sha256)


def parse_form(fields: Mapping[str, bytearray]) -> FileForm:
    """The form's fields, with ``expires_after[seconds]`` nested; unknown ones are ignored."""
    nested: dict[str, Any] = {}
    for name, value in fields.items():
        outer, bracket, inner = name.partition("[")
        text = value.decode(errors="replace")
        if not bracket:
            nested[outer] = text
        elif isinstance(group := nested.setdefault(outer, {}), dict):
            # A form has text alone: its digits are the numbers.
            group[inner.removesuffix("]")] = int(text) if _NUMBER.match(text) else text
    try:
        return FileForm.model_validate(nested)
    except ValidationError as error:
        raise from_validation(error.errors()) from None


def clean_filename(sent: str | None) -> str:
    """The last component of what the client called the file, without control characters."""
    base = (sent or "").replace("\\", "/").rsplit("/", 1)[-1]
    kept = "".join(c for c in base if not unicodedata.category(c).startswith("C")).strip()
    return kept[:MAX_FILENAME] or "upload"
