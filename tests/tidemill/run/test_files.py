"""Result files are there whole or not at all, and a failed write has one message."""

import subprocess
import sys
from pathlib import Path

import pytest

from tidemill.errors import TidemillError
from tidemill.run.files import check_can_write

PRINTS = """
from tidemill.run.files import STDOUT, WholeFile
try:
    with WholeFile(STDOUT) as file:
        file.stream.write(b"line\\n")
except OSError as error:
    print(error.strerror, file=__import__("sys").stderr)
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_standard_output_that_is_full_is_said_once() -> None:
    with Path("/dev/full").open("wb") as full:
        words = [sys.executable, "-c", PRINTS]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "No space left on device\n")


def test_what_can_be_written_is_found_out_without_a_trace(tmp_path: Path) -> None:
    check_can_write(tmp_path / "out.jsonl")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".out.jsonl.partial").write_text("of another run")
    check_can_write(tmp_path / "out.jsonl")
    assert (tmp_path / ".out.jsonl.partial").read_text() == "of another run"


@pytest.mark.parametrize(
    ("name", "reason"), [("x" * 250, "File name too long"), ("no/x", "No such file or directory")]
)
def test_what_cannot_be_written_is_said_with_the_reason(
    tmp_path: Path, name: str, reason: str
) -> None:
    with pytest.raises(TidemillError, match=f"cannot be written: {reason}."):
        check_can_write(tmp_path / name)
