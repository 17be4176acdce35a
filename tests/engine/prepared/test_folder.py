"""The folder of kept weights: its place, its bounds, and those who write it at the same time."""

import fcntl
import os
import threading
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from smalldisk import small_disk

from engine.prepared import folder
from engine.prepared.file import Contents, read
from engine.prepared.folder import kept_files, make_room, remove_unfinished, weights_folder
from engine.prepared.keeper import Keeper, end_keepers

CONTENTS = Contents(
    {
        "byte": torch.arange(3, dtype=torch.int8),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "odd": torch.arange(7, dtype=torch.int32),
        "bytes": torch.arange(128, dtype=torch.uint8).view(2, 64),
        "signed": torch.arange(-64, 64, dtype=torch.int8).view(1, 2, 64),
        "halves": torch.linspace(0, 1, 96).bfloat16(),
        "large": torch.linspace(0, 1, 400_000).view(400, 1000),
        "none": torch.empty(0),
    },
    {"name": "ü", "projections": {"head": {"kind": 2}}},
)


class Usage(NamedTuple):
    free: int


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder, on a disk that is large enough."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(folder, "disk_usage", lambda _: Usage(1 << 40))
    return tmp_path / "tidemill" / "weights"


def kept(place: Path, name: str, size: int, used: int) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"{name}.safetensors"
    path.write_bytes(bytes(size))
    os.utime(path, (used, used))
    return path


def names(place: Path) -> list[str]:
    return [each.path.stem for each in kept_files(place)]


def keep(fingerprint: str, contents: Contents = CONTENTS) -> None:
    Keeper(fingerprint, contents).start()
    end_keepers(30)


def assert_reads(place: Path, fingerprint: str) -> None:
    found = read(place / f"{fingerprint}.safetensors", fingerprint, 2)
    assert found.form == CONTENTS.form
    assert found.tensors.keys() == CONTENTS.tensors.keys()
    for name, tensor in CONTENTS.tensors.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name], tensor)
        if tensor.nbytes % 64 == 0:
            assert found.tensors[name].data_ptr() % 64 == 0


def test_it_is_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    expected = Path("/home/somebody/.cache/tidemill/weights")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert weights_folder() == expected
    for ignored in ("", "a/relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert weights_folder() == expected
    monkeypatch.setenv("XDG_CACHE_HOME", "/large")
    assert weights_folder() == Path("/large/tidemill/weights")


def test_a_kept_file_is_a_safetensors_file_that_gives_what_was_written(place: Path) -> None:
    keep("one")
    assert_reads(place, "one")
    plain = load_file(place / "one.safetensors")
    assert plain.keys() == CONTENTS.tensors.keys()
    assert all(torch.equal(plain[name], tensor) for name, tensor in CONTENTS.tensors.items())


def test_the_least_recently_used_go_first_and_no_more_than_needed(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "MOST_BYTES", 100)
    for name, size, used in (("b", 30, 2), ("a", 30, 1), ("d", 10, 4), ("c", 30, 3)):
        kept(place, name, size, used)
    assert names(place) == ["a", "b", "c", "d"]
    assert make_room(place, 0)
    assert names(place) == ["a", "b", "c", "d"]
    assert make_room(place, 31)
    assert names(place) == ["c", "d"]
    assert not make_room(place, 101), "it never fits"
    assert names(place) == ["c", "d"]
    assert make_room(place, 100)
    assert names(place) == []


def test_they_take_no_more_than_a_tenth_of_what_is_free_without_them(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(place, "a", 60, 1)
    monkeypatch.setattr(folder, "disk_usage", lambda _: Usage(940))
    assert make_room(place, 40)
    assert names(place) == ["a"]
    assert not make_room(place, 101)
    assert make_room(place, 41)
    assert names(place) == []


def test_a_model_that_is_too_large_is_not_kept(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "MOST_BYTES", 1000)
    keep("one")
    assert list(place.iterdir()) == []


def test_several_at_once_leave_one_whole_file(place: Path) -> None:
    keepers = [Keeper("one", CONTENTS) for _ in range(6)]
    for each in keepers:
        each.start()
    end_keepers(30)
    assert [path.name for path in place.iterdir()] == ["one.safetensors"]
    assert_reads(place, "one")


def test_what_a_killed_writer_left_goes_and_what_is_being_written_stays(place: Path) -> None:
    place.mkdir(parents=True)
    (place / "left.tmp").write_bytes(b"half")
    with (place / "written.tmp").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        remove_unfinished(place)
        assert [path.name for path in place.iterdir()] == ["written.tmp"]
    keep("one")
    assert [path.name for path in place.iterdir()] == ["one.safetensors"]


def test_a_writer_that_must_end_leaves_nothing_and_is_quick(place: Path) -> None:
    # Pages of zeros that nobody touched: they take no memory, and seconds to write.
    large = torch.from_numpy(np.zeros(4 << 30, dtype=np.uint8))
    thread = Keeper("one", Contents({"large": large}, {}))
    thread.start()
    while not list(place.glob("*.tmp")):
        time.sleep(0.001)
    began = time.monotonic()
    thread.end(0)
    assert not thread.is_alive()
    assert time.monotonic() - began < 0.5
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("cache", ["/proc/nowhere", "/dev/null"])
def test_a_folder_that_cannot_be_made_is_no_obstacle(
    cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    failures: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", failures.append)
    keep("one")
    assert not failures


def test_a_disk_that_is_full_is_no_obstacle(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", failures.append)
    with small_disk(tmp_path / "disk", 8 << 20) as disk:
        monkeypatch.setenv("XDG_CACHE_HOME", str(disk.path))
        there = disk.path / "tidemill" / "weights"
        there.mkdir(parents=True)
        disk.fill(leave=200_000)
        keep("one")
        assert list(there.iterdir()) == []
        assert not failures
        disk.free()
        keep("one")
        assert_reads(there, "one")
