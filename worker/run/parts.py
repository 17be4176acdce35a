"""Parts: the committed results of one chunk, in the input's line order.

A part is JSON lines, each ``{"line": n, "ok": true, "text": …}``, where ``text`` is the line of the
output or error file as it will be written: the merge copies its bytes and does not parse them.
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
    """One result. ``ok`` tells whether its line goes to the output file or to the error file."""

    line: int
    ok: bool
    text: msgspec.Raw


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)


def encode_record(line: int, ok: bool, text: bytes) -> bytes:
    """One line of a part, with its newline."""
    return _encoder.encode(Record(line, ok, msgspec.Raw(text))) + b"\n"


class Digest(Protocol):
    """What reading a part uses of a ``hashlib`` object."""

    def update(self, data: bytes, /) -> None: ...


@dataclass(frozen=True, slots=True)
class PartReader:
    """Reads parts range by range, so that a merge of many keeps no connection or file open.

    ``buffer_bytes`` is how much of each part is in memory at once.
    """

    store: ObjectStore
    buffer_bytes: int = READ_BYTES

    @classmethod
    def sharing(cls, store: ObjectStore, parts: int, budget: int) -> "PartReader":
        """A reader of ``parts`` parts at once, within ``budget`` bytes of memory for all."""
        share = budget // max(parts, 1)
        return cls(store, max(_MIN_READ_BYTES, min(READ_BYTES, share)))

    def records(self, key: str, digest: Digest) -> Iterator[Record]:
        """The records of a part, in line order; ``digest`` is updated with every byte.

        Raises:
            BrokenResult: a line of it is no record.
            ObjectStoreError: the part is not there or cannot be read.
        """
        size = self.store.head(key).size
        started: list[bytes] = []  # what was read of a line whose end is not read yet
        for start in range(0, size, self.buffer_bytes):
            with self.store.reader(key, start=start, end=start + self.buffer_bytes) as stream:
                data = stream.read()
            digest.update(data)
            first, *others = data.split(b"\n")
            started.append(first)
            for line in others:
                yield _record(b"".join(started))
                started = [line]
        if any(started):
            yield _record(b"".join(started))


def _record(line: bytes) -> Record:
    try:
        return _decoder.decode(line)
    except msgspec.DecodeError as error:
        raise BrokenResult("A part holds a line that is no record.") from error
