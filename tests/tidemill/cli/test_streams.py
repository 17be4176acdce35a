"""Where data goes and where it comes from: pipes, devices, full disks, folders, several inputs."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tidemill.cli.main import main

Command = Callable[..., Any]


@pytest.fixture
def prompts(command: Command, tmp_path: Path) -> Path:
    path = tmp_path / "in.txt"
    path.write_text("Why?\n")
    return path


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (".", "Error: . is a folder; name the files in it"),
        ("/", "Error: / is a folder; name the files in it"),
        ("folder", "Error: folder is a folder"),
        ("no/such.txt", "Error: no/such.txt cannot be read: No such file"),
        ("in.txt/x", "Error: in.txt/x cannot be read: Not a directory"),
        ("loop", "Error: loop cannot be read: Too many levels of symbolic links"),
        ("/dev/zero", "Error: /dev/zero is a device or a socket"),
        ("/dev/null", "Error: /dev/null is a device or a socket"),
        ("x" * 300, "cannot be read: File name too long"),
    ],
)
@pytest.mark.parametrize("name", ["run", "submit"])
def test_an_input_that_is_no_file_is_named(
    command: Command, prompts: Path, name: str, path: str, said: str
) -> None:
    Path("folder").mkdir()
    Path("loop").symlink_to("loop")
    ended = command(name, "in.txt", path)
    assert (ended.code, ended.out, len(ended.err.splitlines())) == (1, "", 1)
    assert said in ended.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-", "-"), "'-' is named twice"),
        (("in.txt", "in.txt"), "The input of in.txt and the input of in.txt are the same file"),
        (("in.txt", "in.jsonl"), "the output of in.jsonl are the same file, in.output.jsonl"),
        (("in.txt", "other.txt", "-o", "all.jsonl"), "--output all.jsonl is no folder"),
        (("in.txt", "other.txt", "--errors", "bad"), "--errors bad is no folder"),
        (("in.txt", "other.txt", "-o", "-", "--format", "parquet"), "Several Parquet files"),
        (("in.txt", "--model", "nonsense"), "There is no model 'nonsense'; there is smollm2"),
        (("in.txt", "--max-tokens", "8192"), "--max-tokens: the context of smollm2 is 8,192"),
        (("in.txt", "--stop", ""), "--stop: A stop string is empty"),
        (("in.txt", "--stop", "a", *["--stop", "b"] * 16), "--stop: "),
        (("in.txt", "--seed", str(2**64)), "--seed: seed must be between"),
        (("in.txt", "--temperature", "2.5"), "2.5 is not between 0 and 2"),
        (("in.txt", "--temperature", "nan"), "nan is not between 0 and 2"),
        (("in.txt", "--top-p", "0"), "0.0 is not above 0 and at most 1"),
        (("in.txt", "--max-tokens", "0"), "0 is not 1 or more"),
    ],
)
def test_what_run_refuses_before_it_starts_anything(
    command: Command, prompts: Path, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n')
    (tmp_path / "other.txt").write_text("a\n")
    ended = command("run", *words)
    assert said in ended.err
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.splitlines()[-1].startswith("Error: ")
    assert "=" not in ended.err.replace("--", "")
    assert not (tmp_path / "home").exists()


def run_with(monkeypatch: pytest.MonkeyPatch, stream: Any, *words: str) -> int:
    """The exit code of a command whose standard output is this one."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        patch.setattr(sys, "argv", ["tidemill", *words])
        patch.setattr(sys, "excepthook", sys.excepthook)
        with pytest.raises(SystemExit) as caught:
            main()
    return int(caught.value.code or 0)


@pytest.mark.parametrize(
    "words", [("models", "list"), ("models", "list", "--json"), ("--version",)]
)
def test_a_full_disk_under_standard_output_is_one_line(
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
) -> None:
    with Path("/dev/full").open("w") as full:
        assert run_with(monkeypatch, full, *words) == 1
    said = capsys.readouterr().err
    assert said == "Error: Standard output cannot be written: No space left on device.\n"


def test_a_reader_that_has_gone_is_no_error(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as gone:
        assert run_with(monkeypatch, gone, "models", "list") == 141
    assert capsys.readouterr().err == ""


def test_standard_output_that_is_closed_is_said(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_with(monkeypatch, None, "models", "list") == 1
    assert capsys.readouterr().err == "Error: Standard output is closed.\n"


def test_a_full_disk_under_temporary_files_is_one_line(
    command: Command, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device", "/tmp/x")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", full)
    os.mkfifo("pipe")
    ended = command("run", "pipe")
    assert (ended.code, len(ended.err.splitlines())) == (1, 1)
    assert "/tmp/x: No space left on device. Free some space" in ended.err


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_input_is_read_ends_it_in_one_line(tmp_path: Path, number: int) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    process = subprocess.Popen(
        [sys.executable, "-m", "tidemill", "run", "pipe", "--home", "home"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    # It can be opened once the command reads it.
    with process, pipe.open("wb"):
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (128 + number, "Interrupted.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


@pytest.mark.parametrize("field", ["answer", "finish_reason", "error"])
def test_submit_sends_rows_with_fields_of_any_name(
    command: Command, api_url: str, tmp_path: Path, field: str
) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps({"prompt": "2+2?", field: "4"}))
    ended = command("submit", "in.jsonl", "--url", api_url, "--api-key", "secret")
    assert ended.code == 0, ended.err
    assert any(line.startswith("batch_") for line in ended.out.splitlines())
