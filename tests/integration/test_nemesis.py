"""A minute on the real stack with everything failing in turn, and then every line is judged."""

from pathlib import Path

import pytest

from integration.harness.arena import open_arena
from integration.soak.phases import SETTINGS, Load, Soak

pytestmark = [pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(420)]

SEED = 3
MINUTES = 1.2
FAULTS = 8
LOAD = Load(customers=2, sizes=(100, 200, 400), tokens=(4, 24))


def test_faults_of_many_kinds_lose_and_double_nothing(tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    with open_arena(tmp_path / "arena", workers=2, **SETTINGS) as arena:
        result = Soak(arena, inputs, SEED, LOAD).run(MINUTES, measure=False, faults=FAULTS)
    assert result.details == []
    assert result.warnings == []
    assert result.kept
    assert result.lines >= 500
    assert result.faults.total() >= FAULTS
    assert len(result.faults) >= 5
