"""Ahead of the sections: what is shipped for this card is compiled in many processes at once.

The code goes to Triton's cache, where the sections find it. What is missing there when the time is
over is compiled when it is first run.
"""

import os
import subprocess
import sys
from pathlib import Path

import torch

from gpu.rows import Section

ROOT = Path(__file__).parents[2]


def run(section: Section) -> None:
    """A row with what was compiled, and one for each kernel that may not be shipped."""
    major, minor = torch.cuda.get_device_capability()
    command = [sys.executable, "-m", "compiling.run", "--card", f"{major}{minor}", "--keep-code"]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
            capture_output=True,
            text=True,
            timeout=max(1, section.left - 1),
        )
    except subprocess.TimeoutExpired:
        section.row(note="the time was over before all was compiled")
        return
    for line in done.stdout.splitlines():
        if ": BAD, " in line:
            section.row(bad=True, note=line)
    section.row(note=(done.stderr.strip().splitlines() or [""])[-1])
