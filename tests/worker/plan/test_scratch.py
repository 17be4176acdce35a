"""A planner's temporary files go, whoever left them."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from worker.plan.scratch import PREFIX, scratch_folder, sweep


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_goes_with_its_context(temporary: Path) -> None:
    with scratch_folder() as folder:
        (folder / "rows").write_text("some")
        assert folder.parent == temporary
    assert not folder.exists()


def test_what_a_killed_process_left_is_swept(temporary: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = temporary / f"{PREFIX}{gone.pid}-abc"
    left.mkdir()
    (left / "rows").write_text("some")
    sweep()
    assert not left.exists()


def test_what_others_use_stays(temporary: Path) -> None:
    alive = temporary / f"{PREFIX}1-abc"  # process 1 is always there
    strange = temporary / f"{PREFIX}notes"
    for folder in (alive, strange):
        folder.mkdir()
    with scratch_folder() as ours:
        sweep()
        assert ours.exists()
    assert alive.exists()
    assert strange.exists()
