"""Zstandard as a stream, by PyArrow's own codec: in constant memory, up to a limit.

As with gzip, the limit counts decoded bytes, and a ratio refuses a bomb at its beginning. The ratio
is another one: lines that repeat one long prompt reach some thousands to 1, zeros about 30,000.
"""

import io
from typing import Any, BinaryIO

from storage.errors import DamagedData, DecodedTooLarge

MAGIC = b"\x28\xb5\x2f\xfd"
MOST_TIMES = 10_000
ANY_RATIO_BYTES = 16 << 20  # no ratio is checked before so much is decoded


class Zstandard(io.RawIOBase):
    """The content of one or more frames.

    Reading raises `DamagedData` and `DecodedTooLarge`, and what the packed stream raises.

    Args:
        head: bytes of the stream that were read already.
    """

    def __init__(self, head: bytes, stream: BinaryIO, max_bytes: int) -> None:
        # Imported here: nothing else of streams needs PyArrow.
        import pyarrow as pa

        self._damage = (pa.ArrowException, OSError)
        self._packed = _Counted(head, stream)
        self._plain = pa.CompressedInputStream(pa.PythonFile(self._packed, mode="r"), "zstd")
        self._limit = max_bytes
        self._made = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._plain.read(len(buffer))
        except self._damage as error:
            if isinstance(error, OSError) and error.errno:
                raise  # of the packed stream itself
            cut = "runcated" in str(error)
            raise DamagedData(
                f"The Zstandard data is {'cut off' if cut else 'damaged'}."
            ) from error
        self._made += len(data)
        if self._made > self._limit:
            raise DecodedTooLarge(f"The Zstandard data holds more than {self._limit} bytes.")
        if self._made > max(ANY_RATIO_BYTES, MOST_TIMES * self._packed.count):
            raise DecodedTooLarge(
                f"The Zstandard data holds more than {MOST_TIMES} times its size."
            )
        buffer[: len(data)] = data
        return len(data)


class _Counted:
    """A packed stream as Arrow reads it, with the number of bytes that were read."""

    closed = False

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head = head
        self._stream = stream
        self.count = 0

    def read(self, size: int) -> bytes:
        data, self._head = self._head[:size], self._head[size:]
        data = data or self._stream.read(size)
        self.count += len(data)
        return data

    def close(self) -> None:
        """The caller closes the stream."""
