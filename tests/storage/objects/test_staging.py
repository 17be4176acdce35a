"""Files of killed writers go at the next look; those of living ones stay, even slow ones."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage.objects.local import LocalStore
from storage.objects.staging import staging_file, sweep

DAY = 86_400.0
WRITER = """
import sys, time
from pathlib import Path
from storage.objects.local import LocalStore
with LocalStore(Path(sys.argv[1])).writer("files/a/b") as writer:
    writer.write(b"x" * 1_000_000)
    print("writing", flush=True)
    time.sleep(60)
"""


def _files(root: Path) -> list[Path]:
    return list((root / ".staging").iterdir())


def test_what_a_killed_process_was_writing_goes_at_once(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert len(_files(tmp_path)) == 1
        assert store.sweep(DAY) == 0, "its writer lives"
        process.kill()
    assert store.sweep(DAY) == 1
    assert _files(tmp_path) == []
    assert list(store.list("")) == []


def test_a_writer_of_this_process_is_spared(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    with store.writer("files/a/b") as writer:
        writer.write(b"data")
        assert store.sweep(DAY) == 0
    with store.reader("files/a/b") as stream:
        assert stream.read() == b"data"
    assert store.sweep(DAY) == 0


def test_a_file_is_locked_until_it_has_its_name(tmp_path: Path) -> None:
    with staging_file(tmp_path) as (path, file):
        file.close()
        assert sweep(tmp_path, DAY) == 0
        assert path.exists()


def test_a_file_that_is_swept_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock: Callable[[int, int], None] = __import__("fcntl").flock
    swept: list[int] = []

    def sweep_first(descriptor: int, how: int) -> None:
        if not swept:
            monkeypatch.setattr("fcntl.flock", lock)
            swept.append(sweep(tmp_path, DAY))
        lock(descriptor, how)

    monkeypatch.setattr("fcntl.flock", sweep_first)
    with staging_file(tmp_path) as (path, _):
        assert swept == [1]
        assert path.exists()


def test_a_file_that_is_locked_stays_however_old_it_is(tmp_path: Path) -> None:
    with staging_file(tmp_path) as (path, _):
        os.utime(path, (1, 1))
        assert sweep(tmp_path, DAY) == 0
        assert path.exists()


def test_without_locks_the_age_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr("fcntl.flock", refuse)
    with staging_file(tmp_path) as (path, _):
        assert sweep(tmp_path, DAY) == 0
        os.utime(path, (1, 1))
        assert sweep(tmp_path, DAY) == 1


def test_files_of_others_stay(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_bytes(b"x")
    assert sweep(tmp_path, 0.0) == 0
    assert (tmp_path / "theirs").exists()


def test_a_folder_that_is_removed_before_its_first_file_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, folder = Path.open, tmp_path / ".staging"

    def remove_first(path: Path, *args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(Path, "open", real)
        folder.rmdir()
        return real(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", remove_first)
    with staging_file(folder) as (path, _):
        assert path.exists()
