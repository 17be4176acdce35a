"""Gzip as a stream: recognized by its first bytes, decoded in constant memory, up to a limit.
Zstandard likewise (`storage.streams.zstandard`).

What is in it, or stands there plainly, is given as UTF-8 where a byte-order mark names UTF-16.

The limit counts decoded bytes. A decompression bomb is also refused by its ratio: a good input that
repeats one long prompt on every line reaches about 130 to 1, zeros reach DEFLATE's 1,032 to 1. The
ratio is that of the bytes that were decoded so far, so a bomb is refused at its beginning, however
large a file it is in.
"""

import io
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, cast

from storage.errors import DamagedData, DecodedTooLarge
from storage.streams import zstandard
from storage.streams.encodings import MARK_BYTES, Utf8, marked_encoding

MAGIC = b"\x1f\x8b"
READ_BYTES = 1 << 18
MOST_TIMES = 500
ANY_RATIO_BYTES = 16 << 20  # no ratio is checked before so much is decoded
_GZIP = 16 + zlib.MAX_WBITS  # zlib's way to ask for gzip's header and checksum


def decoded(
    stream: BinaryIO, *, max_bytes: int, heartbeat: Callable[[], None] = lambda: None
) -> BinaryIO:
    """The content of ``stream``: unpacked if it is gzip or Zstandard; UTF-16 becomes UTF-8.

    Reading may raise `DecodedTooLarge` and `DamagedData`, and what ``stream`` raises. The caller
    closes ``stream``.

    Args:
        heartbeat: called for every chunk of the content; it raises to end the reading.
    """
    head = _first(stream, MARK_BYTES)
    unpacked: io.RawIOBase | None = None
    if head.startswith(MAGIC):
        unpacked = _Unpacked(head, stream, max_bytes)
    elif head == zstandard.MAGIC:
        unpacked = zstandard.Zstandard(head, stream, max_bytes)
    if unpacked is not None:
        stream = cast(BinaryIO, io.BufferedReader(unpacked, READ_BYTES))
        head = _first(stream, MARK_BYTES)
    marked = marked_encoding(head)
    if marked is None:
        return _beating(_Joined(head, stream), heartbeat)
    encoding, mark = marked
    return _beating(Utf8(head[mark:], stream, encoding), heartbeat)


def joined(head: bytes, rest: BinaryIO) -> BinaryIO:
    """Bytes that were read already, and the rest of their stream."""
    return cast(BinaryIO, io.BufferedReader(_Joined(head, rest), READ_BYTES))


def _first(stream: BinaryIO, count: int) -> bytes:
    """The first bytes of a stream; fewer only where it ends."""
    head = b""
    while len(head) < count and (data := stream.read(count - len(head))):
        head += data
    return head


def _beating(raw: io.RawIOBase, heartbeat: Callable[[], None]) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(_Beating(raw, heartbeat), READ_BYTES))


class _Beating(io.RawIOBase):
    """A stream that calls its heartbeat before every read."""

    def __init__(self, raw: io.RawIOBase, heartbeat: Callable[[], None]) -> None:
        self._raw = raw
        self._heartbeat = heartbeat

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._heartbeat()
        return self._raw.readinto(buffer)


class _Joined(io.RawIOBase):
    """Bytes that were read already, and the rest of their stream."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._head or self._rest.read(len(buffer))
        buffer[: len(data)] = data
        self._head = b""
        return len(data)


class _Unpacked(io.RawIOBase):
    """The content of one or more gzip members; zeros may follow each of them."""

    def __init__(self, head: bytes, stream: BinaryIO, max_bytes: int) -> None:
        self._stream = stream
        self._packed = head
        self._limit = max_bytes
        self._read = len(head)
        self._made = 0
        self._member = zlib.decompressobj(_GZIP)
        self._started = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if not self._packed:
                self._packed = self._stream.read(READ_BYTES)
                self._read += len(self._packed)
            if not self._packed:
                return self._end()
            if data := self._unpack(len(buffer)):
                buffer[: len(data)] = data
                return len(data)

    def _unpack(self, most: int) -> bytes:
        if not self._started:
            self._packed = self._packed.lstrip(b"\0")
            if not self._packed:
                return b""
            if not MAGIC.startswith(self._packed[: len(MAGIC)]):
                raise DamagedData("Something that is no gzip follows the gzip data.")
            self._member, self._started = zlib.decompressobj(_GZIP), True
        try:
            data = self._member.decompress(self._packed, most)
        except zlib.error as error:
            raise DamagedData("The gzip data is damaged.") from error
        if self._member.eof:
            self._packed, self._started = self._member.unused_data, False
        else:
            self._packed = self._member.unconsumed_tail
        self._made += len(data)
        decoded_from = self._read - len(self._packed)
        if self._made > self._limit:
            raise DecodedTooLarge(f"The gzip data holds more than {self._limit} bytes.")
        if self._made > max(ANY_RATIO_BYTES, MOST_TIMES * decoded_from):
            raise DecodedTooLarge(f"The gzip data holds more than {MOST_TIMES} times its size.")
        return data

    def _end(self) -> int:
        if self._started:
            raise DamagedData("The gzip data is cut off.")
        return 0
