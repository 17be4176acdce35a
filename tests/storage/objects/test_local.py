"""What is particular to the folder: durability, full disks, and edits from outside."""

import errno
import hashlib
import os
from pathlib import Path

import pytest

from storage.errors import ObjectChanged, ObjectNotFound, ObjectStoreError, OutOfSpace
from storage.objects.local import LocalStore

KEY = "files/acme/file-1"


@pytest.fixture
def folder(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "objects")


def test_objects_are_plain_files(folder: LocalStore) -> None:
    folder.put(KEY, b"hello")
    assert (folder.root / KEY).read_bytes() == b"hello"


def test_the_etag_is_the_sha256_also_without_extended_attributes(folder: LocalStore) -> None:
    folder.put(KEY, b"hello")
    digest = hashlib.sha256(b"hello").hexdigest()
    assert folder.head(KEY).etag == digest
    os.removexattr(folder.root / KEY, "user.tidemill.sha256")  # as a plain copy would
    assert folder.head(KEY).etag == digest
    with folder.reader(KEY, if_match=digest) as stream:
        assert stream.read() == b"hello"


def test_an_edit_from_outside_is_noticed(folder: LocalStore) -> None:
    etag = folder.put(KEY, b"hello").etag
    (folder.root / KEY).write_bytes(b"HELLO")
    with pytest.raises(ObjectChanged), folder.reader(KEY, if_match=etag):
        pass


def test_everything_is_synced_before_it_is_there(
    folder: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.parent.name == ".staging":
            assert not (folder.root / KEY).exists()
            synced.append("content")
        else:
            assert (folder.root / KEY).exists()
            synced.append(path.relative_to(folder.root).as_posix())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    folder.put(KEY, b"hello", if_absent=True)
    assert synced == ["content", "files/acme", "files", "."]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk(folder: LocalStore, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def full(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutOfSpace):
        folder.put(KEY, b"hello")
    with pytest.raises(ObjectNotFound):
        folder.head(KEY)
    assert list((folder.root / ".staging").iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_disk_that_fills_while_writing(folder: LocalStore) -> None:
    """A real ENOSPC from the kernel, in the middle of a large object."""
    folder.put("a", b"1")

    def fill() -> None:
        with folder.writer(KEY) as writer:
            aside = next((folder.root / ".staging").iterdir())
            full = os.open("/dev/full", os.O_WRONLY)
            for number in Path("/proc/self/fd").iterdir():
                if number.resolve() == aside.resolve():
                    os.dup2(full, int(number.name))
            os.close(full)
            writer.write(b"x" * 1_000_000)

    with pytest.raises(OutOfSpace):
        fill()
    with pytest.raises(ObjectNotFound):
        folder.head(KEY)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "objects").write_text("a file is in the way")
    with pytest.raises(ObjectStoreError):
        LocalStore(tmp_path / "objects").put(KEY, b"x")


def test_what_dead_writers_left_is_swept(folder: LocalStore) -> None:
    folder.put(KEY, b"x")
    left = folder.root / ".staging" / ("dead" * 8)
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    assert folder.sweep(3600) == 1
    assert not left.exists()
    assert folder.head(KEY).size == 1


def test_empty_folders_go_with_their_last_object(folder: LocalStore) -> None:
    folder.put("parts/batch_1/0-4/1.jsonl", b"x")
    folder.put("parts/batch_2/0-4/1.jsonl", b"x")
    folder.delete("parts/batch_1/0-4/1.jsonl")
    assert sorted(path.name for path in (folder.root / "parts").iterdir()) == ["batch_2"]
