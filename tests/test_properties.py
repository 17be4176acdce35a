"""The property tests of a plain run draw the same examples whatever ran before them."""

import subprocess
import sys
from ast import literal_eval
from pathlib import Path

import properties
from hypothesis import settings

DRAW = """
import sys

import properties
from hypothesis import given, strategies as st

properties.use_profiles()
properties.ignore_loaded_modules()
if sys.argv[1:]:
    import beside
drawn = []

@given(st.integers(), st.text())
def draw(number, text):
    drawn.append((number, text))

draw()
print(ascii(drawn))
"""
CONSTANTS = "NUMBERS = [{}]".format(", ".join(str(7_000_000 + i) for i in range(500)))


def test_a_plain_run_repeats_its_examples() -> None:
    assert settings.get_current_profile_name() == "default"
    assert properties.current().derandomize
    assert properties.current().database is None
    assert properties.current().deadline is None


def test_examples_do_not_depend_on_the_modules_that_are_loaded(tmp_path: Path) -> None:
    script = tmp_path / "draw.py"
    script.write_text(DRAW)
    (tmp_path / "beside.py").write_text(CONSTANTS)

    def draw(*arguments: str) -> str:
        return subprocess.run(
            [sys.executable, str(script), *arguments],
            env={"PYTHONPATH": str(Path(__file__).parent)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    drawn = draw()
    assert len(literal_eval(drawn)) == 100
    assert draw() == drawn
    assert draw("beside") == drawn
