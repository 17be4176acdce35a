"""What a section of the GPU's benchmark writes while it runs, so that an early end loses little."""

import faulthandler
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from engine.config import STAND_IN

BAD = "BAD"


class DeviceLost(Exception):
    """The device answers nothing more in this process."""


@dataclass
class Section:
    """One section at work, in a process of its own.

    It does one thing after the other, each of a name of its own. What was begun is noted down, so
    that a process that takes the place of a lost one goes on behind it.

    Attributes:
        name: of the section.
        folder: where its rows go.
        seconds: that it may take from now on.
        device: ``cuda``, or ``stand-in`` where shapes are toys.
        picked: does only what has one of these in its name, between bars; empty is all.
        bad: rows that were bad.
    """

    name: str
    folder: Path
    seconds: float
    device: str = "cuda"
    picked: str = ""
    bad: int = 0
    _began: float = field(default_factory=time.monotonic)
    _skipped: int = 0

    def __post_init__(self) -> None:
        self._begun = set(begun(self.folder, self.name))

    @property
    def dry(self) -> bool:
        """Whether only the script is tried, on toy shapes."""
        return self.device == STAND_IN

    @property
    def torch_device(self) -> torch.device:
        """Where tensors are."""
        return torch.device("cpu" if self.dry else self.device)

    @property
    def first(self) -> bool:
        """Whether no process went before this one."""
        return not self._begun

    @property
    def left(self) -> float:
        """Seconds."""
        return self._began + self.seconds - time.monotonic()

    def wants(self, name: str) -> bool:
        """Whether something of this name is picked, and was not begun before."""
        picks = [pick.strip() for pick in self.picked.split("|")]
        return name not in self._begun and any(pick in name for pick in picks)

    def begins(self, name: str, *, needs: float = 4.0, limit: float = 60.0) -> bool:
        """Note that something begins, unless it is not wanted or there is no time for it.

        Args:
            name: of it.
            needs: seconds that must be left.
            limit: seconds after which the process is ended, as it seems to hang.
        """
        if not self.wants(name):
            return False
        if self.left < needs:
            self._skipped += 1
            return False
        with _begun_path(self.folder, self.name).open("a") as file:
            file.write(json.dumps(name) + "\n")
        self._begun.add(name)
        if not self.dry:
            faulthandler.dump_traceback_later(limit, exit=True)
        return True

    def end(self, **columns: Any) -> None:
        """Say how much there was no time for."""
        if not self.dry:
            faulthandler.cancel_dump_traceback_later()
        if self._skipped:
            self.row(**columns, note=f"no time left for {self._skipped} more")

    def row(self, *, bad: bool = False, **columns: Any) -> None:
        """Write a row of the table; a bad one makes the run fail."""
        self.bad += bad
        if bad:
            columns["note"] = f"{BAD} {columns.get('note', '')}".strip()
        write(self.folder, self.name, columns)
        print(f"{self.name}: {columns}", flush=True)

    def failed(self, error: BaseException, **columns: Any) -> None:
        """Write a bad row of what an exception ended.

        Raises:
            DeviceLost: it was one of those of CUDA that all later calls raise again.
        """
        self.row(bad=True, **columns, note=said(error))
        if self.device != "cuda":
            return
        try:
            torch.cuda.synchronize()
        except RuntimeError as lost:
            raise DeviceLost(said(lost)) from error
        torch.cuda.empty_cache()


def path(folder: Path, name: str) -> Path:
    """The file of a section's rows."""
    return folder / f"{name}.jsonl"


def _begun_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.begun"


def forget(folder: Path, name: str) -> None:
    """Drop what an earlier run of a section left."""
    for file in (path(folder, name), _begun_path(folder, name)):
        file.unlink(missing_ok=True)


def write(folder: Path, name: str, columns: dict[str, Any]) -> None:
    """Add a row to a section's file."""
    with path(folder, name).open("a") as file:
        file.write(json.dumps(columns) + "\n")


def read(folder: Path, name: str) -> list[dict[str, Any]]:
    """A section's rows; the last line may be cut off."""
    return _lines(path(folder, name))


def begun(folder: Path, name: str) -> list[str]:
    """What a section began, in order."""
    return _lines(_begun_path(folder, name))


def any_bad(rows: list[dict[str, Any]]) -> bool:
    """Whether one of these rows is bad."""
    return any(str(row.get("note", "")).startswith(BAD) for row in rows)


def _lines(file: Path) -> list[Any]:
    found = []
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def said(error: BaseException) -> str:
    """An exception in one short line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:160]
