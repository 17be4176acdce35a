"""Zstandard is unpacked as it is read, up to a limit; damage is never a shorter input."""

import io
import random

import pyarrow as pa
import pytest

from storage.errors import DamagedData, DecodedTooLarge, ObjectStoreUnavailable
from storage.streams.gzipped import decoded
from storage.streams.jsonl import read_lines

RANDOM = random.Random(0)
DATA = b"".join(b'{"n": %d}\n' % RANDOM.getrandbits(200) for _ in range(5_000))


def packed(data: bytes) -> bytes:
    return bytes(pa.compress(data, "zstd", asbytes=True))


def unpacked(data: bytes, limit: int = 1 << 30) -> bytes:
    return decoded(io.BytesIO(data), max_bytes=limit).read()


@pytest.mark.parametrize("cut", [0, 1, 100_000, len(DATA)])
def test_frames_follow_each_other(cut: int) -> None:
    assert unpacked(packed(DATA[:cut]) + packed(DATA[cut:])) == DATA
    lines = read_lines(decoded(io.BytesIO(packed(DATA)), max_bytes=1 << 30), max_line_bytes=1_000)
    assert sum(1 for _ in lines) == 5_000


def test_utf16_in_it_is_read_as_utf8() -> None:
    assert unpacked(packed("é\n".encode("utf-16"))) == "é\n".encode()


@pytest.mark.parametrize("left", [5, 20, 1_000, 100_000])
def test_what_is_cut_off_or_damaged_is_said(left: int) -> None:
    whole = packed(DATA)
    for broken in (whole[:left], whole[:-3], whole + b"garbage", whole + packed(DATA)[:left]):
        with pytest.raises(DamagedData, match=r"Zstandard data is (cut off|damaged)"):
            unpacked(broken)


def test_a_byte_that_changed_is_no_other_content() -> None:
    whole = bytearray(packed(DATA))
    whole[len(whole) // 2] ^= 0xFF
    try:
        found = unpacked(bytes(whole))
    except DamagedData:
        return
    assert found != DATA  # frames without a checksum cannot tell


def test_more_than_the_limit_is_refused() -> None:
    with pytest.raises(DecodedTooLarge, match="more than 1000 bytes"):
        unpacked(packed(DATA), 1_000)


def read_to_the_end(data: bytes, sizes: list[int]) -> None:
    stream = decoded(io.BytesIO(data), max_bytes=1 << 40)
    while piece := stream.read(1 << 18):
        sizes.append(len(piece))


def test_a_bomb_is_refused_at_its_beginning() -> None:
    bomb = packed(bytes(100_000_000))
    assert len(bomb) < 10_000
    read: list[int] = []
    with pytest.raises(DecodedTooLarge, match="10000 times its size"):
        read_to_the_end(bomb, read)
    assert sum(read) < 40_000_000
    repeated = b"the same long prompt, again and again " * 100 + b"%d\n"
    lines = b"".join(repeated % n for n in range(10_000))
    assert unpacked(packed(lines)) == lines


class Broken(io.BytesIO):
    """A stream that fails after its first piece."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > 1_000:
            raise ObjectStoreUnavailable
        return super().read(size)


def test_a_stream_that_fails_is_not_taken_for_damage() -> None:
    whole = packed(DATA)
    with pytest.raises(ObjectStoreUnavailable):
        decoded(Broken(whole), max_bytes=1 << 30).read()
