"""Inputs in a folder of this machine: links, and all that is no regular file."""

import os
import resource
import socket
from pathlib import Path
from typing import Any

import pytest

from storage.errors import InputModified, InputUriError, ObjectStoreUnavailable
from storage.settings import StorageSettings


def test_links_that_lead_out_of_the_folder_are_refused(folder: Any, tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    for made in (inside / "t", inside / "u", outside):
        made.mkdir(parents=True)
        (made / "a.csv").write_text("a\n1\n")
    lake = type(folder)(inside.as_uri(), StorageSettings(), lambda path, data: None)
    (inside / "t" / "b.csv").symlink_to(inside / "t" / "a.csv")
    assert lake.names("t") == ["t/a.csv", "t/b.csv"]
    (inside / "u" / "b.csv").symlink_to(outside / "a.csv")
    (inside / "folder").symlink_to(outside)
    (inside / "v").mkdir()
    (inside / "v" / "folder").symlink_to(outside)
    for path in ("u", "u/b.csv", "u/*", "folder", "folder/a.csv", "folder/*", "v"):
        with pytest.raises(InputUriError, match="leads elsewhere") as caught:
            lake.listed(path)
        assert caught.value.code == "input_uri_not_allowed"


@pytest.mark.parametrize("path", ["", "t", "t/*.csv", "**/*.csv"])
def test_what_is_passed_over_does_no_harm(folder: Any, tmp_path: Path, path: str) -> None:
    folder.put("t/a.csv", b"a\n1\n")
    odd = tmp_path / "t"
    (odd / ".#notes.csv").symlink_to("nobody@nowhere")
    (odd / ".out").symlink_to("/")
    (odd / "_out").symlink_to("/")
    os.mkfifo(odd / "_pipe.csv")
    (odd / "sub").symlink_to(odd)
    (odd / "lost+found").mkdir()
    (odd / "lost+found" / "gone.csv").symlink_to("nothing")
    (odd / ".hidden").mkdir()
    os.mkfifo(odd / ".hidden" / "pipe.csv")
    if "*" in path:
        (odd / "gone").symlink_to("nothing")
        os.mkfifo(odd / "pipe")
    if path == "t/*.csv":
        (odd / "out").symlink_to("/")
        (odd / "in").mkdir()
        os.mkfifo(odd / "in" / "pipe.csv")
    assert folder.names(path) == ["t/a.csv"]


def test_a_link_to_nothing_is_named(folder: Any, tmp_path: Path) -> None:
    folder.put("t/a.csv", b"a\n1\n")
    (tmp_path / "t" / "b.csv").symlink_to("nothing")
    with pytest.raises(InputUriError, match=r"nothing at .*/t/b\.csv'") as caught:
        folder.listed("t")
    assert caught.value.code == "input_not_found"


def test_what_is_no_regular_file_is_refused(folder: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(InputUriError, match="no regular file"):
        folder.listed("")


@pytest.mark.parametrize("made", ["nothing", "pipe", "folder", "socket", "loop", "below a file"])
def test_a_name_that_became_that_of_something_else_is_a_change(
    folder: Any, tmp_path: Path, made: str
) -> None:
    folder.put("t/a.csv", b"a\n1\n")
    (file,) = folder.listed("t")
    path = tmp_path / "t" / "a.csv"
    path.unlink()
    if made == "pipe":
        os.mkfifo(path)
    elif made == "folder":
        path.mkdir()
    elif made == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
    elif made == "loop":
        path.symlink_to(path)
    elif made == "below a file":
        path.parent.rmdir()
        path.parent.touch()
    with pytest.raises(InputModified, match=r"t/a\.csv' was changed or deleted"):
        folder.read(file)


def test_a_file_that_cannot_be_opened_now_was_not_changed(folder: Any) -> None:
    folder.put("a.csv", b"a\n1\n")
    (file,) = folder.listed("")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(ObjectStoreUnavailable, match=r"a\.csv' cannot be read now") as caught:
            folder.read(file)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.retryable
    assert folder.read(file) == b"a\n1\n"


def test_names_of_any_bytes_are_read(folder: Any, tmp_path: Path) -> None:
    name = os.fsdecode(b"d\xff=caf\xe9")
    (tmp_path / name).mkdir()
    (tmp_path / name / os.fsdecode(b"\xfe %.csv")).write_bytes(b"data")
    (file,) = folder.listed("")
    assert file.uri == f"{folder.root}/d%FF=caf%E9/%FE %25.csv"
    assert file.partitions == {"d\ufffd": "caf\ufffd"}
    assert folder.read(file) == b"data"
