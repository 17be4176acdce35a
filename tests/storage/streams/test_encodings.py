"""Text in another encoding than UTF-8, told by its mark."""

import codecs
import gzip
import io
from typing import BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import DamagedData
from storage.streams.encodings import unmarked_utf16
from storage.streams.gzipped import decoded
from storage.streams.jsonl import read_lines

TEXT = "Grüße, 🙂 und 中文\r\n\r\nzwei\n"
ENCODINGS = [
    ("utf-16-le", codecs.BOM_UTF16_LE),
    ("utf-16-be", codecs.BOM_UTF16_BE),
    ("utf-32-le", codecs.BOM_UTF32_LE),
    ("utf-32-be", codecs.BOM_UTF32_BE),
]


class Slow(io.BytesIO):
    """A stream that gives at most ``step`` bytes at a time."""

    step = 3

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self.step if size is None or size < 0 else min(size, self.step))


def read(data: bytes, step: int = 1 << 20) -> bytes:
    stream = Slow(data)
    stream.step = step
    return decoded(cast(BinaryIO, stream), max_bytes=1 << 20).read()


@pytest.mark.parametrize(("encoding", "mark"), ENCODINGS)
@pytest.mark.parametrize("packed", [False, True])
def test_a_mark_tells_the_encoding_also_inside_gzip(
    encoding: str, mark: bytes, packed: bool
) -> None:
    data = mark + TEXT.encode(encoding)
    data = gzip.compress(data, mtime=0) if packed else data
    assert read(data, step=3) == TEXT.encode()
    lines = read_lines(decoded(io.BytesIO(data), max_bytes=1 << 20), max_line_bytes=100)
    assert [(line.number, line.data.decode()) for line in lines] == [
        (1, "Grüße, 🙂 und 中文"),
        (3, "zwei"),
    ]


@given(st.text(max_size=30), st.sampled_from(ENCODINGS), st.integers(1, 9))
def test_any_text_is_read_however_it_arrives(
    text: str, encoding: tuple[str, bytes], step: int
) -> None:
    name, mark = encoding
    # A NUL behind the mark of UTF-16 would make it that of UTF-32.
    text = "x" + text
    assert read(mark + text.encode(name), step) == text.encode()


def test_half_of_a_surrogate_pair_costs_its_own_line_alone() -> None:
    text = "a\ncut \ud83d\nb\n"
    assert read(codecs.BOM_UTF16_LE + text.encode("utf-16-le", "surrogatepass")).split(b"\n") == [
        b"a",
        b"cut \xed\xa0\xbd",
        b"b",
        b"",
    ]


@pytest.mark.parametrize(
    "data",
    [
        codecs.BOM_UTF16_LE + b"a\0b",
        codecs.BOM_UTF32_BE + b"\0\0\0a\0\0",
        codecs.BOM_UTF32_BE + b"\x7f\0\0\0",
    ],
)
def test_a_text_that_ends_within_a_character_is_damaged(data: bytes) -> None:
    with pytest.raises(DamagedData, match="damaged or cut off"):
        read(data)


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        ("Name a".encode("utf-16-le"), "UTF-16LE"),
        ("Name a".encode("utf-16-be"), "UTF-16BE"),
        (b"abc\0def", None),
        (b"\0\0\0\0", None),
        (b"", None),
    ],
)
def test_utf16_without_a_mark_is_told_from_binary_data(data: bytes, encoding: str | None) -> None:
    assert unmarked_utf16(data) == encoding
