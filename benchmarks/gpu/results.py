"""What a run of sections leaves in its folder, and the table that is made of it."""

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gpu import rows, table

SECONDS = {"correct": 110, "kernels": 115, "engine": 160, "quality": 40}
"""That each section may take where all are run; see ``--budget``."""
COMPILE = "compile"
"""What is done ahead of the sections, in a process of its own as they are."""
FACTS, ABOUT, ENDED = "facts.json", "about.json", "ended.json"
"""Of the device, of the run, and how its sections ended."""
_PACKAGES = ("torch", "triton", "transformers", "tokenizers", "safetensors", "numpy")


def versions() -> str:
    """Of Python and the packages that matter."""
    found = [f"Python {platform.python_version()}"]
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"no {package}")
    return ", ".join(found)


def driver() -> str:
    """The version of NVIDIA's driver, as the system says it."""
    path = Path("/proc/driver/nvidia/version")
    return path.read_text().splitlines()[0] if path.is_file() else "unknown"


def write_table(folder: Path) -> tuple[str, bool]:
    """The table of what is there, written to its file; and whether all of it is well."""
    facts = {"device": "none: a trial run"} | _kept(folder / FACTS) | _kept(folder / ABOUT)
    ended = _kept(folder / ENDED)
    sections = {}
    for name in (COMPILE, *SECONDS):
        found = rows.read(folder, name)
        if found or name in ended or rows.begun(folder, name):
            sections[name] = ended.get(name, "Cut off."), found
    text = table.render(facts, sections)
    (folder / "table.md").write_text(text)
    good = all(
        name == COMPILE or (how.endswith(" done.") and not rows.any_bad(found))
        for name, (how, found) in sections.items()
    )
    return text, good


def _kept(file: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    return found
