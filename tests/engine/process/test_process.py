"""The engine in its own process: fed, drained, and clear about its death."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from engine import Completion, EngineConfig, EngineProcess, Request, SamplingParams
from engine.errors import EngineDied, InvalidConfig, ModelNotFound
from engine.process.launch import launch

CONFIG = EngineConfig(dtype="float32", device="cpu", kv_cache_bytes=200 * 2**20)
PROMPT = tuple(range(1000, 1020))
ENDLESS = SamplingParams(max_tokens=4000, ignore_eos=True)


@pytest.fixture
def engine() -> Iterator[EngineProcess]:
    process = EngineProcess(CONFIG)
    process.start(timeout=120)
    yield process
    process.close()


@pytest.fixture
def impatient() -> Iterator[EngineProcess]:
    """One that may be silent for two seconds only."""
    process = EngineProcess(CONFIG, hang_seconds=2.0)
    process.spawn()
    pid = process.pid
    process.start(timeout=120)
    assert process.pid == pid, "one that is spawned is not started again"
    yield process
    process.close()


def collect(engine: EngineProcess, count: int, timeout: float = 60) -> list[Completion]:
    done: list[Completion] = []
    deadline = time.monotonic() + timeout
    while len(done) < count:
        assert time.monotonic() < deadline, f"{len(done)} of {count} after {timeout} s"
        done += engine.poll(0.5)
    return done


def test_a_process_that_was_launched_before_is_used() -> None:
    with closing(launch()) as launched:
        process = EngineProcess(CONFIG, launched=launched)
        process.spawn()
        assert process.pid == launched.process.pid
    assert process.start(timeout=120).model == "smollm2", "it was taken, and lives on"
    process.close()
    assert launched.process.poll() is not None


def test_a_process_that_nobody_takes_is_ended() -> None:
    with closing(launch()) as launched:
        assert launched.process.poll() is None
        pid = launched.process.pid
        assert os.getpgid(pid) == pid, "Ctrl-C is not for it"
        assert os.getsid(pid) == os.getsid(0), "niceness counts among processes of one session"
    assert launched.process.poll() == -signal.SIGKILL
    assert launched.log.closed


def test_a_process_whose_launcher_is_gone_ends_by_itself() -> None:
    launched = launch()
    launched.socket.close()
    assert launched.process.wait(60) == 0
    launched.close()


def test_an_engine_that_never_started_is_closed_without_harm() -> None:
    never = EngineProcess(CONFIG)
    never.close()
    never.close()


def test_an_engine_that_is_closed_while_it_is_begun_starts_no_process() -> None:
    with closing(launch()) as launched:
        process = EngineProcess(CONFIG, launched=launched)
        process.close()
        with pytest.raises(EngineDied, match="closed before"):
            process.start(timeout=120)
        assert process.pid is None
        assert launched.process.wait(30) is not None


def test_requests_come_back_once_each_while_more_are_fed(engine: EngineProcess) -> None:
    params = SamplingParams(temperature=0, max_tokens=5)
    engine.submit([Request(f"a{i}", (*PROMPT, i), params) for i in range(10)])
    first = collect(engine, 1)
    engine.submit([Request(f"b{i}", (*PROMPT, i), params) for i in range(10)])
    done = first + collect(engine, 20 - len(first))
    assert sorted(c.request_id for c in done) == sorted(f"{k}{i}" for k in "ab" for i in range(10))
    assert engine.poll(0.1) == []
    assert engine.stats().finished == 20
    assert engine.stats().cached_tokens > 0


def test_a_cancelled_request_comes_back_with_what_it_has(engine: EngineProcess) -> None:
    engine.submit([Request("long", PROMPT, ENDLESS), Request("other", PROMPT, ENDLESS)])
    while engine.stats().output_tokens < 10:
        assert engine.poll(0.2) == []
    began = time.monotonic()
    engine.cancel(["long", "unknown"])
    (completion,) = collect(engine, 1)
    assert time.monotonic() - began < 5
    assert completion.request_id == "long"
    assert completion.outputs[0].finish_reason == "cancelled"
    assert 0 < completion.completion_tokens < 4000


def test_a_killed_engine_is_reported_with_its_signal(engine: EngineProcess) -> None:
    engine.submit([Request("x", PROMPT, ENDLESS)])
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGKILL)
    with pytest.raises(EngineDied, match="SIGKILL") as caught:
        collect(engine, 1)
    assert caught.value.exit_code == -signal.SIGKILL
    assert not engine.alive
    with pytest.raises(EngineDied):
        engine.submit([Request("y", PROMPT, ENDLESS)])


def test_answers_that_came_before_the_death_are_not_lost(engine: EngineProcess) -> None:
    engine.submit([Request("x", PROMPT, SamplingParams(temperature=0, max_tokens=2))])
    time.sleep(5)  # the answer lies in the pipe when the engine is killed
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGKILL)
    assert [completion.request_id for completion in collect(engine, 1)] == ["x"]
    with pytest.raises(EngineDied):
        collect(engine, 1)


def test_a_working_folder_full_of_traps_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("queue", "torch", "engine", "types"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('a file of the user')\n")
    monkeypatch.chdir(tmp_path)
    process = EngineProcess(CONFIG)
    assert process.start(timeout=120).model == "smollm2"
    process.close()


def test_a_crash_leaves_its_last_words(engine: EngineProcess) -> None:
    engine.submit(["not a request"])  # type: ignore[list-item]
    with pytest.raises(EngineDied) as caught:
        collect(engine, 1)
    assert caught.value.exit_code == 1
    assert "AttributeError" in caught.value.log_tail


def test_a_model_that_cannot_be_loaded_is_the_error_it_is_in_process() -> None:
    process = EngineProcess(EngineConfig(model="no-such-model"))
    with pytest.raises(ModelNotFound, match="no-such-model"):
        process.start()
    assert not process.alive
    with pytest.raises(InvalidConfig):
        EngineProcess(EngineConfig(device="abacus")).start()


def test_the_engine_ends_with_who_feeds_it(tmp_path: Path) -> None:
    script = tmp_path / "feeder.py"
    script.write_text(
        "import os, signal, sys\n"
        "from engine import EngineConfig, EngineProcess\n"
        "process = EngineProcess(EngineConfig(device='cpu', kv_cache_bytes=50 * 2**20))\n"
        "process.start()\n"
        "print(process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    reader, writer = os.pipe()
    feeder = os.posix_spawn(
        sys.executable,
        [sys.executable, str(script)],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, writer, 1)],
    )
    os.close(writer)
    with os.fdopen(reader) as lines:
        pid = int(lines.readline())
    os.waitpid(feeder, 0)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and "Z (" not in Path(f"/proc/{pid}/stat").read_text():
        assert time.monotonic() < deadline, "the engine outlives its feeder"
        time.sleep(0.05)


def test_an_engine_that_is_stopped_is_ended_and_reported(impatient: EngineProcess) -> None:
    impatient.submit([Request("x", PROMPT, ENDLESS)])
    assert impatient.pid is not None
    os.kill(impatient.pid, signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(EngineDied, match="no sign of life for 2 seconds"):
        collect(impatient, 1, timeout=30)
    assert 1.5 < time.monotonic() - began < 15
    assert not impatient.alive


def test_feeding_an_engine_that_is_stopped_ends_too(impatient: EngineProcess) -> None:
    assert impatient.pid is not None
    os.kill(impatient.pid, signal.SIGSTOP)
    with pytest.raises(EngineDied, match="no sign of life"):
        impatient.submit([Request(f"x{i}", PROMPT * 50, ENDLESS) for i in range(500)])


def test_an_engine_without_work_may_be_silent(impatient: EngineProcess) -> None:
    impatient.submit([Request("x", PROMPT, SamplingParams(max_tokens=1))])
    collect(impatient, 1)
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        assert impatient.poll(0.5) == []


@pytest.mark.slow
def test_one_long_step_is_no_hang() -> None:
    config = EngineConfig(
        dtype="float32", device="cpu", kv_cache_bytes=400 * 2**20, max_batch_tokens=4096
    )
    process = EngineProcess(config)
    try:
        process.start(timeout=120)
        seconds = _one_step(process, 1000)
        # The same again, with other tokens; a layer is a thirtieth of the step.
        process.hang_seconds = seconds / 4
        _one_step(process, 5000)
        assert process.stats().steps == 2
    finally:
        process.close()


def _one_step(process: EngineProcess, first: int) -> float:
    """Run a prompt that is one step of some seconds; how many."""
    prompt = tuple(first + i % 900 for i in range(2000))
    began = time.monotonic()
    process.submit([Request(f"long{first}", prompt, SamplingParams(max_tokens=1))])
    (completion,) = collect(process, 1, timeout=200)
    assert completion.completion_tokens == 1
    return time.monotonic() - began
