"""Some hundred seeds of the simulation, and that each of them can be played again exactly."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulation.play import play
from simulation.virtual.database import Memory
from simulation.virtual.points import HOT

# A process that is killed closes nothing, and here its memory goes on to be collected.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

RUN = (sys.executable, "-m", "simulation.run")
TESTS = Path(__file__).parents[1]
SEEDS = 200


@pytest.fixture(scope="module")
def memory() -> Memory:
    return Memory()


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, SEEDS, 20))
def test_no_seed_breaks_an_invariant(memory: Memory, start: int) -> None:
    outcomes = [play(seed, memory) for seed in range(start, start + 20)]
    failed = [outcome for outcome in outcomes if outcome.violation is not None]
    assert not failed, "\n".join([str(failed[0].violation), *failed[0].lines()])
    assert sum(outcome.jobs for outcome in outcomes) >= 20
    assert sum(outcome.struck for outcome in outcomes) >= 20


def test_the_same_seed_gives_the_same_trace(memory: Memory) -> None:
    first = play(3, memory)
    play(4, memory)
    again = play(3, memory)
    assert first.trace == again.trace
    assert first.digest == again.digest != play(4, memory).digest


def test_another_process_gives_the_same_trace(memory: Memory) -> None:
    command = [*RUN, "--start", "3", "--seeds", "1", "--trace"]
    environment = {**os.environ, "PYTHONHASHSEED": "4711"}
    done = subprocess.run(
        command, env=environment, cwd=TESTS, capture_output=True, text=True, check=False
    )
    *trace, summary = done.stdout.splitlines()
    assert trace == play(3, memory).lines(), done.stderr
    assert summary.startswith("1 seeds")


def test_the_writes_that_faults_aim_at_are_writes_of_the_product(memory: Memory) -> None:
    """They are known by name: one that is renamed would be hit no more than any other."""
    traces = [play(seed, memory).trace for seed in range(10)]
    events = [what for trace in traces for _, _, what in trace]
    for name in (*HOT, "reclaim_embedded"):
        assert any(event.startswith(name) for event in events), name


def test_the_command_tells_what_failed() -> None:
    command = [*RUN, "--mutants", "split-loses-a-line,attempt-does-not-grow"]
    done = subprocess.run(
        [*command, "--seeds", "40", "--first", "--json"],
        cwd=TESTS,
        capture_output=True,
        text=True,
        check=False,
    )
    told = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert told["split-loses-a-line"]["first"]["invariant"] == "I1"
    assert told["attempt-does-not-grow"]["first"]["invariant"] == "I2"
