"""What a section of the GPU's benchmark writes while it runs, so that an early end loses little."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Section:
    """One section at work, in a process of its own.

    Attributes:
        name: of the section.
        folder: where its rows go.
        seconds: that it may take from now on.
        device: ``cuda``, or another where shapes are toys.
        picked: does only what has this in its name.
    """

    name: str
    folder: Path
    seconds: float
    device: str = "cuda"
    picked: str = ""
    bad: int = 0
    _began: float = field(default_factory=time.monotonic)

    @property
    def dry(self) -> bool:
        """Whether only the script is tried, on toy shapes."""
        return self.device != "cuda"

    @property
    def left(self) -> float:
        """Seconds."""
        return self._began + self.seconds - time.monotonic()

    def wants(self, name: str) -> bool:
        """Whether something of this name is to be done."""
        return self.picked in name

    def row(self, *, bad: bool = False, **columns: Any) -> None:
        """Write a row of the table; a bad one makes the run fail."""
        self.bad += bad
        if bad:
            columns["note"] = f"BAD {columns.get('note', '')}".strip()
        with path(self.folder, self.name).open("a") as file:
            file.write(json.dumps(columns) + "\n")
        print(f"{self.name}: {columns}", flush=True)


def path(folder: Path, name: str) -> Path:
    """The file of a section's rows."""
    return folder / f"{name}.jsonl"


def read(folder: Path, name: str) -> list[dict[str, Any]]:
    """A section's rows; the last line may be cut off."""
    rows = []
    file = path(folder, name)
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def said(error: BaseException) -> str:
    """An exception in one short line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:160]
