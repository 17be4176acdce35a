"""Which devices a worker runs an engine on, and that every one gets its share of the work."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.config import EngineConfig
from storage.database.states import JobState
from worker.models import devices
from worker.models.devices import count_gpus, engine_devices
from worker.process.threads import WorkerThreads


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes a machine with so many GPUs, whose torch is a CUDA build."""
    monkeypatch.setattr(devices, "DEVICE_FILES", tmp_path)
    monkeypatch.setattr(devices, "version", lambda package: "2.11.0+cu130")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def make(count: int) -> None:
        names = [f"nvidia{index}" for index in range(count)]
        for name in [*names, "nvidiactl", "nvidia-uvm", "null"]:
            (tmp_path / name).touch()

    return make


@pytest.mark.parametrize(
    ("count", "setting", "expected"),
    [
        (0, "auto", ("auto",)),
        (1, "auto", ("auto",)),
        (1, "cuda", ("cuda",)),
        (3, "auto", ("cuda:0", "cuda:1", "cuda:2")),
        (3, "cuda", ("cuda:0", "cuda:1", "cuda:2")),
        (3, "cuda:1", ("cuda:1",)),
        (3, "cpu", ("cpu",)),
        (3, "cuda:0, cuda:2", ("cuda:0", "cuda:2")),
        (0, "", ("",)),
    ],
)
def test_every_gpu_has_an_engine_unless_devices_are_named(
    count: int, setting: str, expected: tuple[str, ...], gpus: Callable[[int], None]
) -> None:
    gpus(count)
    assert engine_devices(setting) == expected


@pytest.mark.parametrize(("visible", "expected"), [("0,2", 2), ("", 0), ("1", 1), ("0,1,2,3,4", 4)])
def test_gpus_that_are_hidden_do_not_count(
    visible: str, expected: int, gpus: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert count_gpus() == expected


def test_a_torch_without_cuda_sees_none(
    gpus: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(2)
    monkeypatch.setattr(devices, "version", lambda package: "2.13.0+cpu")
    assert count_gpus() == 0


def test_a_job_runs_on_every_device_of_a_worker(
    make_bench: Any, make_lines: Callable[[int], list[dict[str, Any]]]
) -> None:
    bench = make_bench(device="cuda:0,cuda:1,cuda:2", chunk_lines=2)
    started: Counter[str] = Counter()
    make = bench.lab.make

    def counted(config: EngineConfig) -> Any:
        started[config.device] += 1
        return make(config)

    bench.worker.engines._make = counted
    lines = make_lines(60)
    job_id = bench.create(lines)
    bench.plan(job_id)
    bench.lab.paused = True  # until all three have begun

    def resume(engine: Any) -> None:
        bench.lab.paused = len(started) < 3

    bench.lab.before_poll = resume
    threads = WorkerThreads(bench.worker, job_threads=1)
    threads.start()
    try:
        for _ in range(1200):
            if bench.job(job_id).state == JobState.COMPLETED:
                break
            threads.wake()
            bench.worker.stopping.wait(0.05)
    finally:
        bench.worker.leaving.set()
        assert threads.join(20)
        threads.close_engines()
    job = bench.job(job_id)
    assert (job.state, job.n_ok, job.n_err) == (JobState.COMPLETED, 60, 0)
    assert [row["custom_id"] for row in bench.read(job.out_key)] == [
        row["custom_id"] for row in lines
    ]
    assert started == {"cuda:0": 1, "cuda:1": 1, "cuda:2": 1}
