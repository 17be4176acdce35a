"""Large jobs keep no small one waiting: they are known by size, or by what they turn out to be."""

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from storage.database.states import TERMINAL_JOB_STATES, JobState
from worker.allowance import Allowance
from worker.finish.finalizer import finalize_job
from worker.plan.job import plan_job
from worker.process import job_queue
from worker.process.job_queue import JobQueue
from worker.process.reconciler import tick
from worker.process.threads import WorkerThreads

Line = Callable[..., dict[str, Any]]


@pytest.fixture
def long_at(monkeypatch: pytest.MonkeyPatch) -> int:
    """So many heartbeats make a job long."""
    monkeypatch.setattr(job_queue, "SHORT_BEATS", 40)
    return 40


@pytest.mark.parametrize("beats", [0, 1, 3, 7, 12])
def test_a_plan_that_makes_room_is_begun_anew_and_loses_nothing(
    bench: Any, line: Line, beats: int
) -> None:
    job_id = bench.create([line(f"row{i}", [i + 2]) for i in range(8)])
    assert not plan_job(bench.worker, job_id, Allowance(beats))
    given_back = bench.job(job_id)
    assert (given_back.state, given_back.attempts, given_back.lease_owner) == (
        JobState.VALIDATING,
        0,
        None,
    )
    assert plan_job(bench.worker, job_id, Allowance(1_000))
    job = bench.finish(job_id)
    assert (job.state, job.n_ok, job.plan_epoch) == (JobState.COMPLETED, 8, 2)
    assert [row["custom_id"] for row in bench.read(job.out_key)] == [f"row{i}" for i in range(8)]


@pytest.mark.parametrize("planned", [True, False])
def test_a_finalizer_that_makes_room_publishes_nothing(
    bench: Any, line: Line, planned: bool
) -> None:
    job_id = bench.create([line(f"row{i}", [i + 2]) for i in range(8)])
    if planned:
        bench.plan(job_id)
        bench.run_due()
    else:
        bench.sql("UPDATE job SET cancel = 'cancelled'")
    tick(bench.worker)
    assert not finalize_job(bench.worker, job_id, Allowance(3))
    assert (bench.job(job_id).state, bench.job(job_id).attempts) == (JobState.FINALIZING, 0)
    assert not list(bench.worker.store.list("results/"))
    job = bench.finish(job_id)
    assert job.n_ok + job.n_cancelled == 8
    assert len(bench.read(job.out_key)) + len(bench.read(job.err_key)) == 8


def test_blank_lines_use_an_allowance_up(bench: Any, line: Line) -> None:
    job_id = bench.create([gzip.compress(b"\n" * 8_000_000)])
    assert not plan_job(bench.worker, job_id, Allowance(20))


def test_seconds_are_allowed_until_somebody_waits() -> None:
    waiting: list[bool] = []
    beat = Allowance(seconds=0.0, needed=lambda: bool(waiting)).around(lambda: None)
    for _ in range(3):
        beat()
    waiting.append(True)
    beat()  # asked a moment ago
    over = Allowance(seconds=0.0, needed=lambda: bool(waiting)).around(lambda: None)
    with pytest.raises(Exception, match="others wait"):
        over()


def test_a_job_that_turns_out_long_goes_to_other_threads(bench: Any, line: Line) -> None:
    queue = JobQueue(bench.worker)
    job_id = bench.create([line("a")])
    ((job, allowance),) = list(queue.next(short=True, finalize_first=False))
    assert (job.job_id, allowance.beats) == (job_id, job_queue.SHORT_BEATS)
    assert list(queue.next(short=False, finalize_first=False)) == []
    queue.given_back(job_id)
    assert list(queue.next(short=True, finalize_first=False)) == []
    seconds = []
    for _ in range(3):
        ((job, allowance),) = list(queue.next(short=False, finalize_first=False))
        queue.given_back(job_id)
        seconds.append(allowance.seconds)
    assert seconds == [60.0, 120.0, 240.0]
    queue.ended(job_id)
    assert len(list(queue.next(short=True, finalize_first=False))) == 1


def test_a_job_at_work_is_given_to_no_other_thread(bench: Any, line: Line) -> None:
    queue = JobQueue(bench.worker)
    made = [bench.create([line("a")]) for _ in range(2)]
    first = queue.next(short=True, finalize_first=False)
    assert next(first)[0].job_id == made[0]
    assert [job.job_id for job, _ in queue.next(short=True, finalize_first=False)] == [made[1]]
    assert next(first)[0].job_id == made[1]


@pytest.fixture
def run(bench: Any) -> Iterator[Callable[..., None]]:
    """Starts a worker's threads; they have ended when the test has."""
    threads = WorkerThreads(bench.worker)
    yield threads.start
    bench.worker.stopping.set()
    assert threads.join(10)


def test_a_small_job_is_done_while_large_ones_hold_their_planners(
    bench: Any,
    line: Line,
    long_at: int,
    run: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Six jobs that look small and are not come first, and those who plan them are held up."""
    lines = [line(f"row{i}", [i % 90 + 2]) for i in range(long_at + 5)]
    large = [bench.create(lines) for _ in range(6)]
    small = bench.create([line("a")])
    leave, held = threading.Event(), set[str]()

    def plan(worker: Any, job_id: str, allowance: Allowance) -> bool:
        if allowance.beats is None:
            held.add(job_id)
            assert leave.wait(30)
        return plan_job(worker, job_id, allowance)

    monkeypatch.setattr("worker.process.threads.plan_job", plan)
    run()
    try:
        _until(lambda: len(held) == 2)
        _until(lambda: bool(bench.job(small).state in TERMINAL_JOB_STATES))
        states = {bench.job(job_id).state for job_id in large}
        assert states == {JobState.VALIDATING}
    finally:
        leave.set()
    _until(lambda: all(bench.job(job_id).state != JobState.VALIDATING for job_id in large))
    for job_id in large:
        assert sum(chunk.b - chunk.a for chunk in bench.chunks(job_id)) == len(lines)


def _until(reached: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)
