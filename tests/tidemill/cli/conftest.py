"""The command in this process."""

import io
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tidemill.cli.main import main


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


class Screen(io.TextIOWrapper):
    """A stream that is a terminal, or is none."""

    terminal = False

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Runs the command in this process, in an empty folder and with a home folder of its own."""
    for name in [name for name in os.environ if name.startswith("TIDEMILL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, terminal: bool = False) -> Ended:
        written = [io.BytesIO() for _ in range(2)]
        streams = [Screen(each, encoding="utf-8", write_through=True) for each in written]
        with monkeypatch.context() as patch:
            for name, stream in zip(("stdout", "stderr"), streams, strict=True):
                stream.terminal = terminal
                patch.setattr(sys, name, stream)
            patch.setattr(sys, "argv", ["tidemill", *arguments])
            patch.setattr(sys, "excepthook", sys.excepthook)
            with pytest.raises(SystemExit) as caught:
                main()
        out, err = (each.getvalue().decode() for each in written)
        return Ended(int(caught.value.code or 0), out, err)

    return run
