"""Parts: the committed results of one chunk, in the input's line order.

A part is JSON lines, each ``{"line": n, "ok": true, "text": …}``, where ``text`` is the line of the
result file as it will be written. So the merge copies bytes and never looks into an answer.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import msgspec

from storage.objects import ObjectStore
from worker.errors import BrokenResult

READ_BYTES = 256 * 1024
_MIN_READ_BYTES = 16 * 1024


class Record(msgspec.Struct, frozen=True, gc=False):
    """One line of the results. ``ok`` tells the output file from the error file."""

    line: int
    ok: bool
    text: msgspec.Raw


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)


def encode_record(line: int, ok: bool, text: bytes) -> bytes:
    """One line of a part, with its newline."""
    return _encoder.encode(Record(line, ok, msgspec.Raw(text))) + b"\n"


class Digest(Protocol):
    """The part of ``hashlib``'s objects that reading a part needs."""

    def update(self, data: bytes, /) -> None: ...


@dataclass(frozen=True, slots=True)
class PartReader:
    """Reads parts in ranges, so that a merge of many holds no connection or file open.

    ``buffer_bytes`` is what each part that is being read may hold in memory.
    """

    store: ObjectStore
    buffer_bytes: int = READ_BYTES

    @classmethod
    def sharing(cls, store: ObjectStore, parts: int, budget: int) -> "PartReader":
        """A reader for ``parts`` at once within ``budget`` bytes of buffers."""
        share = budget // max(parts, 1)
        return cls(store, max(_MIN_READ_BYTES, min(READ_BYTES, share)))

    def records(self, key: str, digest: Digest) -> Iterator[Record]:
        """The records of a part, in line order; ``digest`` is fed every byte.

        Raises:
            BrokenResult: a line of it is no record.
            ObjectStoreError: the part is not there or cannot be read.
        """
        size = self.store.head(key).size
        started: list[bytes] = []  # blocks of a line whose end was not read yet
        for start in range(0, size, self.buffer_bytes):
            with self.store.reader(key, start=start, end=start + self.buffer_bytes) as stream:
                block = stream.read()
            digest.update(block)
            first, *others = block.split(b"\n")
            started.append(first)
            for line in others:
                yield _decode(b"".join(started))
                started = [line]
        if any(started):
            yield _decode(b"".join(started))


def _decode(line: bytes) -> Record:
    try:
        return _decoder.decode(line)
    except msgspec.DecodeError as error:
        raise BrokenResult("A part holds a line that is no record.") from error
