"""The benchmark of a GPU keeps what it found, and says so where there is no GPU."""

import argparse
import json
import sys
from pathlib import Path

import pytest
import torch

from gpu import rows, table
from gpu import run as start


def test_a_device_that_answers_nothing_more_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [None, RuntimeError("CUDA error: unspecified launch failure")]

    def synchronize() -> None:
        if (error := answers.pop(0)) is not None:
            raise error

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    one = rows.Section("kernels", tmp_path, 60)
    one.failed(ValueError("a wrong shape"), kernel="a")
    with pytest.raises(rows.DeviceLost, match="unspecified launch failure"):
        one.failed(RuntimeError("CUDA error: unspecified launch failure"), kernel="b")
    assert [row["kernel"] for row in rows.read(tmp_path, "kernels")] == ["a", "b"]
    assert one.bad == 2


@pytest.mark.slow
def test_a_lost_process_is_a_bad_row_and_another_goes_on_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = """
import os, sys
from pathlib import Path
sys.path[:0] = [{root!r}, {root!r} + "/benchmarks"]
from gpu.rows import Section
section = Section("kernels", Path({folder!r}), 60, "stand-in")
for name in "abcd":
    if section.begins(name):
        if name == "b":
            os.abort()
        if name == "c":
            section.row(kernel=name, bad=True)
            os._exit({lost})
        section.row(kernel=name)
"""
    text = script.format(root=str(Path(__file__).parents[2]), folder=str(tmp_path), lost=start.LOST)
    monkeypatch.setattr(start, "_command", lambda *arguments: [sys.executable, "-c", text])
    arguments = ["run.py", "--dry", "--out", str(tmp_path), "--sections", "kernels"]
    monkeypatch.setattr(sys, "argv", arguments)
    assert start.main() == 1
    assert rows.read(tmp_path, "kernels") == [
        {"kernel": "a"},
        {"lost": "b", "note": "BAD its process ended with signal 6: see the log"},
        {"kernel": "c", "note": "BAD"},
        {"kernel": "d"},
    ]
    shown = capsys.readouterr().out
    assert " done." in shown

    (tmp_path / "ended.json").unlink()  # as if it had been killed itself
    monkeypatch.setattr(sys, "argv", ["run.py", "--table", "--out", str(tmp_path)])
    assert start.main() == 1
    again = capsys.readouterr().out
    assert "Cut off." in again
    assert shown[shown.index("| kernel |") :].strip() == again[again.index("| kernel |") :].strip()


def test_what_a_section_wrote_stays_when_its_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scripts = {
        "kernels": "print('begun', flush=True); time.sleep(60)",
        "engine": "pass",
        "quality": "raise SystemExit(3)",
    }

    def command(name: str, args: argparse.Namespace, seconds: float) -> list[str]:
        row = f"open('{rows.path(tmp_path, name)}', 'w').write('{{\"name\": \"{name} row\"}}\\n')"
        return [sys.executable, "-S", "-c", f"import time; {row}; {scripts[name]}"]

    monkeypatch.setattr(start, "_command", command)
    monkeypatch.setattr(start, "_GRACE", 0.5)
    monkeypatch.setattr(start, "_MOST_SHARE", 1.0)
    monkeypatch.setattr(start, "SECONDS", {"kernels": 0.5, "engine": 30, "quality": 30})
    monkeypatch.setattr(
        sys, "argv", ["run.py", "--dry", "--out", str(tmp_path), "--sections", *scripts]
    )
    assert start.main() == 1
    shown = capsys.readouterr()
    assert shown.out == (tmp_path / "table.md").read_text() + "\n"
    assert [line for line in shown.out.splitlines() if " row " in line] == [
        f"| {name} row |" for name in scripts
    ]
    assert "killed: its time was over" in shown.out
    assert "ended with status 3" in shown.out
    assert "begun" in shown.err


def test_without_a_gpu_it_says_so_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["run.py", "--out", str(tmp_path / "none")])
    assert start.main() == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "torch sees no CUDA device here: nothing was checked.\n"
    assert not (tmp_path / "none").exists()


def test_a_table_is_cut_to_a_screen_in_whole_lines(tmp_path: Path) -> None:
    many = [{"kernel": f"k{index}", "us": index, "note": "a|b"} for index in range(2000)]
    text = table.render({"device": "x"}, {"kernels": ("1 s of 2, done.", many)})
    assert "| k7 | 7 | a/b |\n" in text
    short = table.shortened(text)
    assert len(short) <= table.MOST_CHARACTERS
    assert short.splitlines()[-2] in text.splitlines()
    assert table.shortened("short") == "short"

    path = rows.path(tmp_path, "engine")
    path.write_text(json.dumps({"a": 1}) + "\n" + '{"b": ')  # ended while it wrote
    assert rows.read(tmp_path, "engine") == [{"a": 1}]
