"""The input that a command names, read from wherever it is."""

import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from smalldisk import small_disk

from storage.datasets.readers.rows import read_rows
from storage.datasets.values.sources import Kind
from tidemill.errors import InputError
from tidemill.run.inputs import open_input


def test_a_pipe_can_be_read_more_than_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("Why?\nHow?\n",))
    writer.start()
    with open_input(pipe, None, tmp_path / "home") as source:
        for _ in range(2):
            assert [row.prompt for row in read_rows(source)] == ["Why?", "How?"]
    writer.join()
    assert (source.name, source.kind) == ("pipe", Kind.TEXT)


def test_a_pipe_that_fills_the_temporary_folder_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def write() -> None:
        with suppress(BrokenPipeError):
            pipe.write_bytes(b"x" * 20_000_000)

    with small_disk(tmp_path / "temporary") as disk:
        monkeypatch.setattr("tempfile.tempdir", str(disk.path))
        writer = threading.Thread(target=write)
        writer.start()
        reading = open_input(pipe, None, tmp_path / "home")
        with pytest.raises(InputError, match="pipe cannot be read to its end: No space left"):
            reading.__enter__()
        writer.join()


def test_the_longest_line_is_the_services_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").write_text("short\n" + "x" * 11 + "\n")
    monkeypatch.setenv("TIDEMILL_MAX_LINE_BYTES", "10")
    with open_input(tmp_path / "in", None, tmp_path) as source:
        rows = list(read_rows(source))
    assert [row.prompt for row in rows] == ["short", None]
    assert rows[1].problem == "The line is longer than 10 bytes."


def test_a_pipe_of_the_shell_is_called_pipe(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"Why?\n")
    os.close(writer)
    with open_input(Path(f"/dev/fd/{reader}"), None, tmp_path / "home") as source:
        assert [row.prompt for row in read_rows(source)] == ["Why?"]
    os.close(reader)
    assert source.name == "pipe"


def test_what_is_not_understood_is_an_error_of_the_command(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"")
    with (
        pytest.raises(InputError, match="in is empty"),
        open_input(tmp_path / "in", None, tmp_path / "home"),
    ):
        pass
