"""Every shipped kernel compiles for every card, spills little and fits into shared memory."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from compiling.outcome import MOST_STACK_BYTES, SHARED_BYTES

pytest.importorskip("triton")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]
PACKAGES = ROOT / "engine" / "kernels" / "triton"
PLANTED = ROOT / "tests" / "compiling" / "planted.py"


def compiled(*arguments: str, home: Path | None = None) -> tuple[list[dict[str, Any]], str]:
    """A row for every launch, and what is said of all; in a process without the interpreter."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    if home is not None:
        environment["HOME"] = str(home)
    done = subprocess.run(
        [sys.executable, "-m", "compiling.run", "--json", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=environment,
        timeout=280,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == any(row["fault"] for row in rows), done.stderr
    return rows, done.stderr.splitlines()[-1]


def test_what_is_shipped_compiles_within_the_bounds_of_every_card() -> None:
    rows, said = compiled("--sample")
    print(said)
    faults = [row for row in rows if row["fault"]]
    assert not faults, f"{said}\n" + "\n".join(map(str, faults))
    shipping = {path.parent.name for path in PACKAGES.glob("*/__init__.py")}
    assert {(row["package"], row["capability"]) for row in rows} == {
        (package, capability) for package in shipping for capability in SHARED_BYTES
    }


def test_planted_faults_are_found_and_equal_launches_compiled_once(tmp_path: Path) -> None:
    rows, said = compiled("--file", str(PLANTED), home=tmp_path)
    assert said.startswith("4 of 4 launches of 3 kernels, 3 bad")
    good, spilled, large, wrong = rows
    assert (good["kernel"], good["fault"]) == ("good", "")
    assert 0 < good["registers"] < 64
    assert spilled["stack_bytes"] > MOST_STACK_BYTES
    assert spilled["fault"].startswith("spills")
    assert large["stack_bytes"] == 0
    assert large["shared_bytes"] > 232_448
    assert "of shared memory, more than 232,448" in large["fault"]
    assert wrong["fault"].startswith("CompilationError")

    # What was found before is not compiled again: it is said to have taken as long.
    again, _ = compiled("--file", str(PLANTED), home=tmp_path)
    assert again == rows
