"""Lines of a stream, whatever is in it."""

import io
import tracemalloc
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from storage.errors import TooManyLines
from storage.streams import jsonl
from storage.streams.jsonl import Line, read_lines


def lines(data: bytes, limit: int = 100) -> list[Line]:
    return list(read_lines(io.BytesIO(data), max_line_bytes=limit))


def plain(data: bytes, limit: int = 100) -> list[tuple[int, bytes]]:
    return [(line.number, line.data) for line in lines(data, limit)]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"a\nb\n", [(1, b"a"), (2, b"b")]),
        (b"a\nb", [(1, b"a"), (2, b"b")]),
        (b"a\r\nb\r\n", [(1, b"a"), (2, b"b")]),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb", [(1, b"a"), (2, b"b")]),
        (b"a\n" + b"\xef\xbb\xbf" * 2 + b"b\n\xef\xbb\xbf\nc", [(1, b"a"), (2, b"b"), (4, b"c")]),
        (b"a\nb\xef\xbb\xbf", [(1, b"a"), (2, b"b\xef\xbb\xbf")]),
        (b"\n\n  \t\r\na\n\n", [(4, b"a")]),
        (b"\xef\xbb\xbf\na", [(2, b"a")]),
        (b"a\rb\n", [(1, b"a\rb")]),
        (b"\x00\xff\n", [(1, b"\x00\xff")]),
        (b"a\n\x1f\n\x00\x7f\nb", [(1, b"a"), (4, b"b")]),
        ("\u3000\n\u200b".encode(), [(2, "\u200b".encode())]),
        ("a\u2028b\u0085c\n".encode(), [(1, "a\u2028b\u0085c".encode())]),
    ],
)
def test_line_ends(data: bytes, expected: list[tuple[int, bytes]]) -> None:
    assert plain(data) == expected


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_the_limit_counts_the_line_alone(start: bytes, end: bytes) -> None:
    assert plain(start + b"x" * 10 + end, limit=10) == [(1, b"x" * 10)]
    (line,) = lines(start + b"x" * 11 + end, limit=10)
    assert (line.number, line.data) == (1, b"")
    assert line.error is not None
    assert "10 bytes" in str(line.error)


def test_lines_go_on_after_one_that_is_too_long() -> None:
    found = lines(b"a\n" + b"x" * 1_000_000 + b"\nb\n" + b"y" * 1_000_000, limit=20)
    assert [(line.number, line.error is None) for line in found] == [
        (1, True),
        (2, False),
        (3, True),
        (4, False),
    ]
    assert found[2].data == b"b"


class Endless(io.RawIOBase):
    """Zeros without a line's end, then a short line; never whole in memory."""

    def __init__(self, size: int) -> None:
        self.left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = min(len(buffer), self.left)
        buffer[:count] = bytes(count)
        if 0 < self.left <= count:
            buffer[count - 2 : count] = b"\na"
        self.left -= count
        return count


def test_an_endless_line_takes_bounded_memory() -> None:
    size = 300 * 1024 * 1024
    stream = io.BufferedReader(Endless(size))
    tracemalloc.start()
    found = list(read_lines(stream, max_line_bytes=4 * 1024 * 1024))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [(line.number, line.data) for line in found] == [(1, b""), (2, b"a")]
    assert peak < 16 * 1024 * 1024


SHORT = st.sampled_from([b"", b" ", b"\r", b"\0\t", b"x", b" y\r", "\u3000".encode(), b"\xe3\x80"])


@given(st.lists(SHORT, max_size=60), st.integers(1, 8), st.integers(0, 60))
def test_runs_of_blank_lines_change_no_number(parts: list[bytes], block: int, most: int) -> None:
    data = b"\n".join(parts)
    before = jsonl.READ_BYTES
    try:
        jsonl.READ_BYTES = block  # runs are skipped where a line may be longer than a block
        assert plain(data, 100) == reference(data, 100)
        count = len(data.split(b"\n")) - data.endswith(b"\n") if data else 0
        if count > most:
            with pytest.raises(TooManyLines):
                list(read_lines(io.BytesIO(data), max_line_bytes=100, max_lines=most))
        else:
            list(read_lines(io.BytesIO(data), max_line_bytes=100, max_lines=most))
    finally:
        jsonl.READ_BYTES = before


@given(
    st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line)),
    st.integers(1, 20),
    st.integers(1, 8),
)
@example([b"a", b"\x1f", b"b"], 20, 8)
def test_blocks_make_no_difference(parts: list[bytes], limit: int, block: int) -> None:
    data = b"\n".join(parts)
    before = jsonl.READ_BYTES
    try:
        jsonl.READ_BYTES = block
        found = plain(data, limit)
    finally:
        jsonl.READ_BYTES = before
    assert found == reference(data, limit)


def reference(data: bytes, limit: int) -> list[tuple[int, bytes]]:
    """Line by line over the whole of it."""
    found = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        while line.startswith(b"\xef\xbb\xbf"):
            line = line[3:]
        line = line.removesuffix(b"\r")
        if len(line) > limit:
            found.append((number, b""))
        elif not blank(line):
            found.append((number, line))
    return found


def blank(line: bytes) -> bool:
    """White space and control characters alone."""
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return False
    return all(char.isspace() or unicodedata.category(char) == "Cc" for char in text)
