"""The resident engine: started once, replaced when it must be, and never in the way of a stop."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from engine.errors import EngineMissing
from storage.errors import ConfigurationError
from storage.settings import EngineSettings, Settings
from worker.errors import ModelNotReady, Stopping
from worker.models import engines
from worker.models.engines import Engines, check_engine_settings, engine_config


def test_the_engine_stays_between_jobs_and_makes_room_for_another_model(bench: Any) -> None:
    found: Engines = bench.worker.engines
    first = found.get("smollm2", "words")
    assert found.get("smollm2", "words") is first
    second = found.get("other", "more words")
    assert not first.engine.alive
    assert second.engine.alive
    assert bench.lab.starts == 2


def test_an_engine_that_died_is_started_again(bench: Any) -> None:
    first = bench.worker.engines.get("smollm2", "words")
    first.engine.close()
    assert bench.worker.engines.get("smollm2", "words").engine.alive


def test_a_model_that_does_not_start_rests_longer_each_time(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "FIRST_PAUSE_SECONDS", 0.05)
    found: Engines = bench.worker.engines
    bench.lab.start_error = EngineMissing()
    rests = []
    for _ in range(3):
        with pytest.raises(ModelNotReady, match="torch is not installed"):
            found.get("smollm2", "words")
        assert found.resting("smollm2")
        began = time.monotonic()
        while found.resting("smollm2"):
            time.sleep(0.001)
        rests.append(time.monotonic() - began)
    assert isinstance(found.failure("smollm2"), EngineMissing)
    assert rests[1] > 1.3 * rests[0]
    assert rests[2] > 1.3 * rests[1]
    assert not found.resting("smollm2")
    bench.lab.start_error = None
    found.get("smollm2", "words")
    assert found.failures == {}


def test_a_stop_does_not_wait_for_an_engine_that_is_still_loading(tmp_path: Path) -> None:
    found = Engines(Settings.load(home=tmp_path).engine)
    outcome: list[Exception] = []

    def start() -> None:
        try:
            found.get("smollm2", "smollm2")
        except Stopping as error:
            outcome.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    time.sleep(0.5)
    found.interrupt()
    thread.join(timeout=10)
    assert not thread.is_alive()
    assert len(outcome) == 1
    assert found.failures == {}, "it is no failure of the model's"


def test_every_engine_setting_reaches_the_engine() -> None:
    chosen = {
        "device": "cpu",
        "dtype": "float32",
        "quantization": "int8",
        "kv_cache_dtype": "int8",
        "kv_cache_bytes": 1_000_000,
        "max_num_seqs": 4,
        "max_batch_tokens": 512,
        "batching": "static",
        "keep_prepared_weights": False,
    }
    settings = EngineSettings.model_validate(chosen)
    assert settings.model_fields_set | {"engine_hang_seconds"} == set(EngineSettings.model_fields)
    config = engine_config(settings, "words")
    assert config.model == "words"
    assert {name: getattr(config, name) for name in chosen} == chosen


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("quantization", "int3", "TIDEMILL_QUANTIZATION: .*none, int8, fp8 or int4"),
        ("kv_cache_dtype", "int4", "TIDEMILL_KV_CACHE_DTYPE: "),
        ("batching", "magic", "TIDEMILL_BATCHING: .*continuous, dynamic or static"),
        ("dtype", "float8", "TIDEMILL_DTYPE: "),
        ("kv_cache_bytes", 0, "TIDEMILL_KV_CACHE_BYTES: .*at least 1"),
    ],
)
def test_a_value_that_the_engine_does_not_know_is_refused_with_its_variable(
    name: str, value: object, said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        check_engine_settings(EngineSettings.model_validate({name: value}))
