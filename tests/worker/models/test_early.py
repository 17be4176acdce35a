"""An engine that is begun before anybody asks for it: handed out once, and never left behind."""

from contextlib import closing
from pathlib import Path

import pytest

from engine.process.client import EngineProcess
from engine.process.launch import launch
from storage.errors import ConfigurationError
from storage.settings import Settings
from worker.models.early import EarlyEngine
from worker.models.engines import engine_config


@pytest.fixture
def early(tmp_path: Path) -> EarlyEngine:
    return EarlyEngine(Settings.load(home=tmp_path, env_file=None).engine)


def begun(early: EarlyEngine) -> EngineProcess:
    assert early._waiting is not None
    return early._waiting


def test_the_engine_that_was_begun_is_handed_out_once(early: EarlyEngine, tmp_path: Path) -> None:
    config = engine_config(Settings.load(home=tmp_path, env_file=None).engine, "smollm2")
    with early:
        early.begin("smollm2")
        process = begun(early)
        early.begin("other")
        assert early.make(config) is process
        another = early.make(config)
        assert another is not process
        assert another.pid is None
        another.close()
    assert process.alive, "whoever asked for it ends it"
    process.close(timeout=0)


def test_an_engine_of_other_settings_is_made_anew_and_the_first_one_ended(
    early: EarlyEngine, tmp_path: Path
) -> None:
    other = Settings.load(home=tmp_path, max_num_seqs=1, env_file=None).engine
    with early:
        early.begin("smollm2")
        process = begun(early)
        another = early.make(engine_config(other, "smollm2"))
        assert another is not process
        another.close()
        assert process.alive
    assert not process.alive


def test_nothing_begun_is_nothing_to_end(early: EarlyEngine, tmp_path: Path) -> None:
    with early:
        pass
    with pytest.raises(ConfigurationError, match="TIDEMILL_QUANTIZATION"):
        EarlyEngine(Settings.load(home=tmp_path, quantization="int3", env_file=None).engine).begin(
            "smollm2"
        )


def test_a_process_that_was_launched_is_the_first_engines_whichever_it_is(tmp_path: Path) -> None:
    settings = Settings.load(home=tmp_path, env_file=None).engine
    config = engine_config(settings, "smollm2")
    with closing(launch()) as launched, EarlyEngine(settings, launched) as early:
        first, second = early.make(config), early.make(config)
        assert isinstance(first, EngineProcess)
        assert isinstance(second, EngineProcess)
        for process in (first, second):
            process.spawn()
        assert first.pid == launched.process.pid
        assert second.pid != launched.process.pid
    assert first.alive, "whoever asked for it ends it"
    first.close(timeout=0)
    second.close(timeout=0)


def test_a_process_that_has_ended_is_not_used(tmp_path: Path) -> None:
    settings = Settings.load(home=tmp_path, env_file=None).engine
    with closing(launch()) as launched, EarlyEngine(settings, launched) as early:
        launched.close()
        process = early.make(engine_config(settings, "smollm2"))
        assert isinstance(process, EngineProcess)
        process.spawn()
        assert process.alive
        process.close(timeout=0)
