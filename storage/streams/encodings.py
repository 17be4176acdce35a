"""Text in UTF-16 or UTF-32, told by its byte-order mark, read as UTF-8 in constant memory."""

import codecs
import io
from collections.abc import Callable
from typing import Any, BinaryIO

from storage.errors import DamagedData

READ_BYTES = 1 << 18
MARK_BYTES = 4  # the longest mark
# UTF-32's little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def marked_encoding(head: bytes) -> tuple[str, int] | None:
    """The encoding that a byte-order mark names, and the mark's length; ``None`` for UTF-8.

    Args:
        head: the first `MARK_BYTES` bytes, fewer only where there are no more.
    """
    return next(((name, len(mark)) for mark, name in _MARKS if head.startswith(mark)), None)


def unmarked_utf16(head: bytes) -> str | None:
    """``UTF-16LE`` or ``UTF-16BE`` where every other byte of a text's first line is zero."""
    start = head[:64]
    even, odd = start[::2], start[1::2]
    if odd and not any(odd) and all(even):
        return "UTF-16LE"
    return "UTF-16BE" if odd and not any(even) and all(odd) else None


class Utf8(io.RawIOBase):
    """A stream in another encoding, as UTF-8.

    Half of a surrogate pair keeps its three bytes, which are not UTF-8: so its line alone fails.
    Reading raises `DamagedData` where the text ends within a character.

    Args:
        head: bytes of the stream that were read already, without its mark.
    """

    def __init__(self, head: bytes, rest: BinaryIO, encoding: str) -> None:
        self._name = encoding[:6].upper()
        self._to_text: Callable[..., str] = codecs.getincrementaldecoder(encoding)(
            "surrogatepass"
        ).decode
        self._head = head
        self._rest = rest
        self._made = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._made:
            data = self._head or self._rest.read(READ_BYTES)
            self._head = b""
            try:
                text = self._to_text(data, final=not data)
            except UnicodeDecodeError as error:
                raise DamagedData(f"The {self._name} text is damaged or cut off.") from error
            self._made = text.encode("utf-8", "surrogatepass")
            if not data:
                break
        count = min(len(buffer), len(self._made))
        buffer[:count] = self._made[:count]
        self._made = self._made[count:]
        return count
