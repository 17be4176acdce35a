"""The demo's data, and the demo itself in small."""

import subprocess
import sys

import pytest

from tidemill.demo import MAX_CHARACTERS, docstrings


def test_the_docstrings_are_distinct_and_always_the_same() -> None:
    items = docstrings(200)
    assert len(items) == 200
    assert len({item.name for item in items}) == 200
    assert len({item.text for item in items}) == 200
    assert all(len(item.text) <= MAX_CHARACTERS for item in items)
    assert docstrings(200) == items


@pytest.mark.slow
def test_the_demo_runs_a_job_with_the_openai_client() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tidemill.demo", "--rows", "6", "--max-tokens", "6"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    last = done.stdout.rstrip().splitlines()[-1]
    assert last.startswith("6 of 6 rows in ")
    for part in ("tokens a second", "of the prompt tokens from the prefix cache"):
        assert part in last
