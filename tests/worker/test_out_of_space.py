"""A disk that fills up, at every step of a job: it is named, and the job goes on later.

The disk is a real file system of a few megabytes.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from smalldisk import Disk, small_disk
from structlog.testing import capture_logs

from storage.database.states import ChunkState, JobState
from storage.errors import OutOfSpace, StorageError
from worker.finish.finalizer import finalize_job
from worker.plan.job import plan_job
from worker.run.drain import drain

Line = Callable[..., dict[str, Any]]


@pytest.fixture
def mount() -> Iterator[Callable[[Path], Disk]]:
    with ExitStack() as stack:
        yield lambda path: stack.enter_context(small_disk(path))


@pytest.fixture
def whole(mount: Callable[[Path], Disk], tmp_path: Path) -> Disk:
    """Everything is on the small disk, the database too."""
    return mount(tmp_path)


@pytest.fixture
def objects(mount: Callable[[Path], Disk], tmp_path: Path) -> Disk:
    """Only the objects are on the small disk."""
    return mount(tmp_path / "objects")


def _lines(line: Line, count: int = 120) -> list[dict[str, Any]]:
    return [line(f"row{i}", [i + 2, i % 7 + 2]) for i in range(count)]


def _reasons(logs: list[Any], event: str) -> list[str]:
    return [str(entry["reason"]) for entry in logs if entry["event"] == event]


def test_planning_waits_until_there_is_space(objects: Disk, make_bench: Any, line: Line) -> None:
    bench = make_bench()
    job_id = bench.create(_lines(line))
    objects.fill()
    with capture_logs() as logs:
        plan_job(bench.worker, job_id)
    (reason,) = _reasons(logs, "plan_postponed")
    assert "full" in reason
    assert bench.job(job_id).state == JobState.VALIDATING
    objects.free()
    bench.sql("UPDATE job SET lease_exp = 0")
    assert bench.finish(job_id).n_ok == 120


def test_planning_waits_for_space_for_its_temporary_files(
    mount: Callable[[Path], Disk],
    tmp_path: Path,
    make_bench: Any,
    line: Line,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = mount(tmp_path / "temporary")
    monkeypatch.setattr("tempfile.tempdir", str(disk.path))
    bench = make_bench()
    job_id = bench.create([*_lines(line), *[b"{"] * 2_000], on_invalid="skip")
    disk.fill()
    with capture_logs() as logs:
        plan_job(bench.worker, job_id)
    (reason,) = _reasons(logs, "plan_postponed")
    assert "temporary files is full" in reason
    disk.free()
    bench.sql("UPDATE job SET lease_exp = 0")
    job = bench.finish(job_id)
    assert (job.n_ok, job.n_err) == (120, 2_000)


def test_responses_are_kept_until_there_is_space_for_their_part(
    objects: Disk, make_bench: Any, line: Line
) -> None:
    bench = make_bench(renew_seconds=0.05)
    job_id = bench.create(_lines(line))
    bench.plan(job_id)
    objects.fill()
    with capture_logs() as logs:
        work = threading.Thread(target=drain, args=(bench.worker, "smollm2"))
        work.start()
        while not _reasons(logs, "commit_failed"):
            time.sleep(0.01)
        objects.free()
        work.join(30)
    assert "full" in _reasons(logs, "commit_failed")[0]
    assert bench.finish(job_id).n_ok == 120
    chunks = bench.chunks(job_id)
    assert {(chunk.attempt, chunk.crashes) for chunk in chunks} == {(1, 0)}, "nothing is run again"
    assert len(bench.lab.submitted) == 120


def test_results_wait_until_there_is_space(objects: Disk, make_bench: Any, line: Line) -> None:
    bench = make_bench()
    job_id = bench.create(_lines(line))
    bench.plan(job_id)
    while bench.job(job_id).state != JobState.FINALIZING:
        drain(bench.worker, "smollm2")
        bench.sql("UPDATE job SET state = 'finalizing'")
    objects.fill()
    with capture_logs() as logs:
        for _ in range(5):
            bench.sql("UPDATE job SET lease_exp = 0")
            finalize_job(bench.worker, job_id)
    assert all("full" in reason for reason in _reasons(logs, "finalize_postponed"))
    assert len(_reasons(logs, "finalize_postponed")) == 5, "it is never given up for this"
    assert list(bench.worker.store.list("results/")) == []
    objects.free()
    bench.sql("UPDATE job SET lease_exp = 0")
    assert bench.finish(job_id).n_ok == 120


@pytest.mark.parametrize("leave", [0, 4096, 65_536, 200_000])
def test_a_full_disk_under_everything_costs_no_line(
    whole: Disk, make_bench: Any, line: Line, leave: int
) -> None:
    bench = make_bench(chunk_lines=32, lease_seconds=6)
    job_id = bench.create(_lines(line))
    refused = 0
    for _ in range(6):
        whole.fill(leave)
        bench.worker.stopping.clear()
        stopper = threading.Timer(0.3, bench.worker.stopping.set)
        stopper.start()
        try:
            bench.run_due()
        except OutOfSpace:
            refused += 1
        stopper.join()
        whole.free()
    bench.worker.stopping.clear()
    bench.sql("UPDATE chunk SET lease_exp = 0 WHERE state = 'leased'")
    bench.sql("UPDATE job SET lease_exp = 0")
    if leave == 0:
        assert refused == 6, "with no space at all not even a lease is written"
    job = bench.finish(job_id)
    assert (job.state, job.n_ok, job.n_err) == (JobState.COMPLETED, 120, 0)
    assert [row["custom_id"] for row in bench.read(job.out_key)] == [f"row{i}" for i in range(120)]
    done = [chunk for chunk in bench.chunks(job_id) if chunk.state == ChunkState.DONE]
    assert sum(chunk.b - chunk.a for chunk in done) == 120


def test_a_database_that_cannot_grow_says_so(whole: Disk, make_bench: Any, line: Line) -> None:
    bench = make_bench()
    whole.fill()
    rows = ", ".join(f"('m{number}', '{'x' * 5_000}', 0)" for number in range(1_000))
    with pytest.raises(OutOfSpace):
        bench.sql(f"INSERT INTO model VALUES {rows}")
    with pytest.raises(StorageError):
        bench.create(_lines(line))
    whole.free()
    assert bench.finish(bench.create(_lines(line))).n_ok == 120
