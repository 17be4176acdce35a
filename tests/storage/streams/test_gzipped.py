"""Gzip as a stream: any cut of it, several members, damage, and content that never ends."""

import gzip
import io
import random
import tracemalloc
import zlib
from typing import BinaryIO, cast

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from storage.errors import DamagedData, DecodedTooLarge
from storage.streams.encodings import MARK_BYTES, marked_encoding
from storage.streams.gzipped import ANY_RATIO_BYTES, decoded

TEXT = b"".join(b"line %d\n" % number for number in range(20_000))


class _Pieces(io.RawIOBase):
    """A stream that gives at most ``step`` bytes at a time."""

    def __init__(self, data: bytes, step: int) -> None:
        self._data = data
        self._step = step

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview[int]") -> int:  # type: ignore[override]
        piece = self._data[: min(self._step, len(buffer))]
        buffer[: len(piece)] = piece
        self._data = self._data[len(piece) :]
        return len(piece)


def _read(data: bytes, max_bytes: int = 1 << 30) -> bytes:
    return decoded(io.BytesIO(data), max_bytes=max_bytes).read()


def _drained(stream: BinaryIO) -> int:
    return sum(map(len, iter(lambda: stream.read(1 << 20), b"")))


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=4), st.integers(2, 50))
def test_members_of_any_number_are_read_however_they_arrive(parts: list[bytes], step: int) -> None:
    assume(marked_encoding(b"".join(parts)[:MARK_BYTES]) is None)
    packed = b"".join(gzip.compress(part, mtime=0) for part in parts)
    stream = cast(BinaryIO, io.BufferedReader(_Pieces(packed, step), buffer_size=step))
    assert decoded(stream, max_bytes=10_000).read() == b"".join(parts)


@pytest.mark.parametrize("data", [b"", b"a", b"ab", b"\x1f", b'{"a": 1}\n' * 50_000])
def test_what_is_not_gzip_passes_as_it_is(data: bytes) -> None:
    assert _read(data, max_bytes=1) == data


def test_zeros_may_follow_and_nothing_else() -> None:
    packed = gzip.compress(TEXT)
    assert _read(packed + b"\0" * 1_000) == TEXT
    with pytest.raises(DamagedData):
        _read(packed + b"more")


@pytest.mark.parametrize("cut", [3, 100, -9, -1])
def test_a_file_that_is_cut_off_is_never_taken_for_a_whole_one(cut: int) -> None:
    with pytest.raises(DamagedData, match="cut off"):
        _read(gzip.compress(TEXT)[:cut])


def test_a_flipped_bit_is_found() -> None:
    packed = bytearray(gzip.compress(TEXT))
    packed[len(packed) // 2] ^= 1
    with pytest.raises(DamagedData, match="damaged"):
        _read(bytes(packed))


def test_the_limit_counts_decoded_bytes() -> None:
    packed = gzip.compress(TEXT)
    assert _read(packed, max_bytes=len(TEXT)) == TEXT
    with pytest.raises(DecodedTooLarge, match=f"more than {len(TEXT) - 1} bytes"):
        _read(packed, max_bytes=len(TEXT) - 1)


def test_a_bomb_is_refused_by_its_ratio_in_flat_memory() -> None:
    deflate = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = b"".join(deflate.compress(bytes(1 << 20)) for _ in range(512)) + deflate.flush()
    assert len(packed) < 1 << 20
    tracemalloc.start()
    try:
        stream = decoded(io.BytesIO(packed), max_bytes=1 << 40)
        with pytest.raises(DecodedTooLarge, match="more than 500 times its size"):
            _drained(stream)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_lines_that_repeat_one_long_prompt_are_no_bomb() -> None:
    prompt = bytes(random.Random(1).choices(b"abcdefghijklmnopqrstuvwxyz ", k=20_000))
    lines = b"".join(b"%d %s\n" % (number, prompt) for number in range(4_000))
    assert len(lines) > ANY_RATIO_BYTES
    stream = decoded(io.BytesIO(gzip.compress(lines, 6)), max_bytes=1 << 40)
    assert _drained(stream) == len(lines)
