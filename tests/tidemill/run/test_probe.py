"""What cannot be written is found out before any work."""

from pathlib import Path

import pytest

from tidemill.errors import TidemillError
from tidemill.run.targets import check_can_write


def test_what_can_be_written_is_found_out_without_a_trace(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("of an earlier run")
    check_can_write(tmp_path / "out.jsonl")
    check_can_write(tmp_path / "new.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]
    assert (tmp_path / "out.jsonl").read_text() == "of an earlier run"


@pytest.mark.parametrize(
    ("name", "reason"), [("x" * 250, "File name too long"), ("no/x", "No such file or directory")]
)
def test_what_cannot_be_written_is_said_with_the_reason(
    tmp_path: Path, name: str, reason: str
) -> None:
    with pytest.raises(TidemillError, match=f"cannot be written: {reason}."):
        check_can_write(tmp_path / name)
