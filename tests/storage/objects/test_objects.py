"""What every object store promises, on a folder and on a real S3 server."""

import hashlib
import io
import threading
from collections.abc import Callable
from functools import partial

import pytest

from storage.errors import (
    ContentMismatch,
    InvalidKey,
    ObjectChanged,
    ObjectExists,
    ObjectNotFound,
)
from storage.objects import ObjectStore
from storage.objects.local import LocalStore

PART = 5 * 1024 * 1024
KEY = "parts/batch_1/0-4/1.jsonl"


def content(size: int) -> bytes:
    block = hashlib.sha256(str(size).encode()).digest()
    return (block * (size // len(block) + 1))[:size]


def read(store: ObjectStore, key: str, start: int = 0, end: int | None = None) -> bytes:
    with store.reader(key, start=start, end=end) as stream:
        return stream.read()


def keys(store: ObjectStore, prefix: str = "") -> list[str]:
    return [info.key for info in store.list(prefix)]


@pytest.mark.parametrize("size", [0, 1, 1000, PART, PART + 1, 2 * PART + 12345])
def test_what_is_put_is_read(store: ObjectStore, size: int) -> None:
    data = content(size)
    info = store.put(KEY, data)
    assert (info.key, info.size) == (KEY, size)
    assert read(store, KEY) == data
    head = store.head(KEY)
    assert (head.size, head.etag) == (size, info.etag)
    assert head.sha256 in (None, hashlib.sha256(data).hexdigest())
    assert abs(head.modified - info.modified) < 2


def test_a_stream_is_put_and_its_digest_is_kept(store: ObjectStore) -> None:
    data = content(PART + 99)
    digest = hashlib.sha256(data).hexdigest()
    info = store.put(KEY, io.BytesIO(data), sha256=digest)
    assert store.head(KEY).sha256 == digest == info.sha256


def test_a_wrong_digest_is_refused(store: ObjectStore) -> None:
    with pytest.raises(ContentMismatch):
        store.put(KEY, b"data", sha256="0" * 64)
    with pytest.raises(ObjectNotFound):
        store.head(KEY)


def test_a_writer_counts_and_hashes_as_it_goes(store: ObjectStore) -> None:
    data = content(PART + 500)
    with store.writer(KEY) as writer:
        for start in range(0, len(data), 70_001):
            writer.write(data[start : start + 70_001])
        assert writer.size == len(data)
        assert writer.sha256 == hashlib.sha256(data).hexdigest()
        with pytest.raises(ObjectNotFound):
            store.head(KEY)  # not visible before the end
    assert writer.info.size == len(data)
    assert read(store, KEY) == data


@pytest.mark.parametrize("size", [10, PART + 10])
def test_an_exception_while_writing_leaves_nothing(store: ObjectStore, size: int) -> None:
    def fail() -> None:
        with store.writer(KEY) as writer:
            writer.write(content(size))
            raise FileNotFoundError

    with pytest.raises(FileNotFoundError):  # the caller's own error, passed through as it is
        fail()
    assert keys(store) == []
    assert store.sweep(0) == 0


@pytest.mark.parametrize("size", [10, PART + 10])
def test_a_conditional_write_never_replaces(store: ObjectStore, size: int) -> None:
    first = content(size)
    info = store.put(KEY, first, if_absent=True)
    with pytest.raises(ObjectExists):
        store.put(KEY, first[:-1] + b"?", if_absent=True)
    assert read(store, KEY) == first
    # The same bytes again are the same write, whose answer may have been lost.
    assert store.put(KEY, first, if_absent=True).etag == info.etag
    assert store.sweep(0) == 0


def test_an_unconditional_write_replaces(store: ObjectStore) -> None:
    first = store.put(KEY, b"one")
    second = store.put(KEY, b"two!")
    assert first.etag != second.etag
    assert read(store, KEY) == b"two!"


def test_of_many_conditional_writers_one_wins(store: ObjectStore) -> None:
    won: list[bytes] = []
    barrier = threading.Barrier(6)

    def write(name: bytes) -> None:
        barrier.wait()
        try:
            store.put(KEY, name, if_absent=True)
        except ObjectExists:
            return
        won.append(name)

    run_all([partial(write, b"%d" % number) for number in range(6)])
    assert len(won) == 1
    assert read(store, KEY) == won[0]


def run_all(calls: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(
    ("start", "end"), [(0, 5), (3, None), (3, 3), (0, 1000), (9, 1000), (10, None), (50, 60)]
)
def test_ranges_are_half_open_and_cut_at_the_end(
    store: ObjectStore, start: int, end: int | None
) -> None:
    data = b"0123456789"
    store.put(KEY, data)
    assert read(store, KEY, start, end) == data[start:end]


def test_an_empty_object_can_be_read_in_part(store: ObjectStore) -> None:
    store.put(KEY, b"")
    assert read(store, KEY, 0, 10) == b""
    assert read(store, KEY) == b""


def test_readers_read_lines_and_pieces(store: ObjectStore) -> None:
    store.put(KEY, b"one\ntwo\nthree")
    with store.reader(KEY) as stream:
        assert stream.readline() == b"one\n"
        assert stream.read(2) == b"tw"
        assert stream.read() == b"o\nthree"
        assert stream.read() == b""


def test_a_reader_asks_for_one_version(store: ObjectStore) -> None:
    before = store.put(KEY, b"before")
    with store.reader(KEY, if_match=before.etag) as stream:
        assert stream.read() == b"before"
    store.put(KEY, b"after")
    with pytest.raises(ObjectChanged), store.reader(KEY, if_match=before.etag) as stream:
        stream.read()


def test_an_open_reader_never_mixes_versions(store: ObjectStore) -> None:
    store.put(KEY, content(PART))
    with store.reader(KEY) as stream:
        head = stream.read(10)
        store.put(KEY, b"x" * PART)
        rest = stream.read()
    assert head + rest == content(PART)


def test_what_is_not_there(store: ObjectStore) -> None:
    with pytest.raises(ObjectNotFound):
        store.head(KEY)
    with pytest.raises(ObjectNotFound), store.reader(KEY):
        pass
    store.delete(KEY)
    assert keys(store, "nothing/") == []


def test_deleting(store: ObjectStore) -> None:
    store.put(KEY, b"data")
    store.delete(KEY)
    store.delete(KEY)
    with pytest.raises(ObjectNotFound):
        store.head(KEY)
    store.put(KEY, b"again", if_absent=True)
    assert read(store, KEY) == b"again"


def test_lists_are_sorted_and_by_prefix(store: ObjectStore) -> None:
    names = ["a/1", "a/2/x", "a/10", "ab/1", "b"]
    for name in names:
        store.put(name, name.encode())
    assert keys(store) == sorted(names)
    assert keys(store, "a/") == ["a/1", "a/10", "a/2/x"]
    assert keys(store, "a") == ["a/1", "a/10", "a/2/x", "ab/1"]
    assert keys(store, "a/1") == ["a/1", "a/10"]
    assert [info.size for info in store.list("b")] == [1]


def test_a_folder_and_an_object_of_one_name(store: ObjectStore) -> None:
    store.put("a/b", b"1")
    with pytest.raises(ObjectNotFound):
        store.head("a")


@pytest.mark.parametrize(
    "key",
    ["", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", ".staging/x", "a\\b", "a b", "a\n", "a\0b"],
)
def test_keys_that_are_no_plain_paths_are_refused(store: ObjectStore, key: str) -> None:
    for use in (store.head, store.delete, lambda key: store.put(key, b"x")):
        with pytest.raises(InvalidKey):
            use(key)
    with pytest.raises(InvalidKey), store.reader(key):
        pass


def test_the_probe_finds_conditional_writes(store: ObjectStore) -> None:
    probe = store.probe()
    assert probe.conditional_writes
    if isinstance(store, LocalStore):
        assert probe.free_bytes is not None
        assert probe.free_bytes > 0
    else:
        assert probe.free_bytes is None
    assert keys(store) == []


def test_sweeping_spares_the_young(store: ObjectStore) -> None:
    with store.writer(KEY) as writer:
        writer.write(content(PART + 1))
        assert store.sweep(3600) == 0
    assert store.head(KEY).size == PART + 1
