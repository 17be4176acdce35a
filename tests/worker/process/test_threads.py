"""A worker's threads: they look by themselves, hurry after a wake-up, and end in good order."""

import threading
import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

import pytest

from engine.errors import OutOfCache
from storage.database.states import TERMINAL_JOB_STATES, ChunkState, JobState
from storage.wakeups import Wakeup
from worker.process.reconciler import Reconciler
from worker.process.threads import WorkerThreads
from worker.run.drain import drain

Line = Callable[..., dict[str, Any]]
Start = Callable[..., WorkerThreads]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts the threads of a bench; it has ended when the test has."""
    started: list[tuple[Any, WorkerThreads]] = []

    def run(bench: Any, **options: Any) -> WorkerThreads:
        threads = WorkerThreads(bench.worker, **options)
        threads.start()
        started.append((bench, threads))
        return threads

    yield run
    for bench, threads in started:
        bench.worker.stopping.set()
        assert threads.join(10)


def _until(reached: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_job_is_done_without_a_single_wakeup(make_bench: Any, line: Line, start: Start) -> None:
    bench = make_bench(reconcile_seconds=0.05)
    reconciler = Reconciler(bench.worker)
    start(bench)
    reconciler.start()
    job_id = bench.create([line("a"), line("b", "y")])
    _until(lambda: bench.job(job_id).state in TERMINAL_JOB_STATES)
    bench.worker.stopping.set()
    reconciler.join(5)
    assert (bench.job(job_id).state, bench.job(job_id).n_ok) == (JobState.COMPLETED, 2)


def test_a_wakeup_is_quicker_than_the_next_look(make_bench: Any, line: Line, start: Start) -> None:
    bench = make_bench(reconcile_seconds=600)
    threads = start(bench, models=[])
    time.sleep(0.2)  # the first look finds nothing
    job_id = bench.create([line("a")])
    threads.wake()
    _until(lambda: bench.job(job_id).state == JobState.RUNNING)


def test_what_is_planned_is_run_without_another_wakeup(
    make_bench: Any, line: Line, start: Start
) -> None:
    bench = make_bench(reconcile_seconds=600)
    threads = start(bench)
    time.sleep(0.2)  # the first look finds nothing
    seen = threads.job_done.wait(0, 0)
    job_id = bench.create([line("a")])
    threads.wake()  # of all that are due, this one alone is heard
    _until(lambda: bench.job(job_id).state in TERMINAL_JOB_STATES)
    assert bench.job(job_id).n_ok == 1
    _until(lambda: threads.job_done.wait(seen, 0) == seen + 2)  # planned, finalized


def test_a_job_ends_soon_after_its_last_chunk_though_others_run_on(
    make_bench: Any, line: Line
) -> None:
    bench = make_bench(reconcile_seconds=600)
    reconciler = Reconciler(bench.worker)
    reconciler.start()
    job_id = bench.create([line("a")])
    bench.plan(job_id)
    drain(bench.worker)  # nobody ticks after it: a drain loop goes on while there are chunks
    _until(lambda: bench.job(job_id).state == JobState.FINALIZING)
    bench.worker.stopping.set()
    reconciler.join(5)


def test_only_a_chunk_that_may_be_the_last_of_its_job_has_the_rows_looked_at(
    make_bench: Any, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(chunk_lines=8)
    sets: list[str] = []
    monkeypatch.setattr(bench.worker.committed, "set", lambda: sets.append("set"))
    for job in "ab":
        bench.plan(bench.create([line(f"row{i}", f"{job} {i}") for i in range(24)]))
    assert drain(bench.worker) == 6
    assert len(sets) == 2


def test_a_reconciler_that_is_asked_sends_all_that_is_due_at_once(
    make_bench: Any, line: Line
) -> None:
    bench = make_bench(reconcile_seconds=600)
    sent: SimpleQueue[Wakeup] = SimpleQueue()
    bench.worker.wakeups.subscribe(sent.put)
    reconciler = Reconciler(bench.worker)
    reconciler.start()
    job_id = bench.create([line("a")])
    for _ in range(2):  # what was sent before is sent again
        reconciler.ask()
        assert sent.get(timeout=10) == Wakeup.plan(job_id)
    bench.worker.stopping.set()
    began = time.monotonic()
    reconciler.join(5)
    assert time.monotonic() - began < 0.3


def test_nothing_waits_while_garbage_is_collected(
    make_bench: Any, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, leave = threading.Event(), threading.Event()

    def collect(worker: Any) -> None:
        begun.set()
        leave.wait(20)

    monkeypatch.setattr("worker.process.reconciler.collect_garbage", collect)
    bench = make_bench(reconcile_seconds=0.05)
    reconciler = Reconciler(bench.worker)
    reconciler.start()
    assert begun.wait(10)
    job_id = bench.create([line("a")])
    bench.plan(job_id)
    drain(bench.worker)
    _until(lambda: bench.job(job_id).state == JobState.FINALIZING)
    bench.worker.stopping.set()
    leave.set()
    reconciler.join(5)


def test_who_waits_for_a_job_hears_that_its_engine_does_not_start(
    make_bench: Any, line: Line, start: Start
) -> None:
    bench = make_bench(reconcile_seconds=600)
    bench.lab.start_error = OutOfCache("The KV cache is too small.")
    bench.plan(bench.create([line("a")]))
    threads = start(bench)
    seen = 0
    while not threads.failures:
        seen = threads.job_done.wait(seen, 10)
        assert seen
    assert "smollm2" in threads.failures


def test_leaving_lets_begun_chunks_end_and_begins_none(
    make_bench: Any, line: Line, start: Start
) -> None:
    bench = make_bench(chunk_lines=8, reconcile_seconds=0.05)
    job_id = bench.create([line(f"row{i}", f"w{i}") for i in range(24)])
    bench.plan(job_id)
    bench.lab.paused = True
    threads = start(bench)
    _until(lambda: bool(bench.lab.submitted))
    bench.worker.leaving.set()
    assert not threads.join(0.3), "the chunk still runs"
    bench.lab.paused = False
    assert threads.join(10)
    chunks = bench.chunks(job_id)
    assert sorted(chunk.state for chunk in chunks) == [
        ChunkState.DONE,
        ChunkState.PENDING,
        ChunkState.PENDING,
    ]
    assert {chunk.crashes for chunk in chunks} == {0}
    assert not bench.worker.stopping.is_set()


def test_what_does_not_end_in_time_is_given_back(make_bench: Any, line: Line, start: Start) -> None:
    bench = make_bench(reconcile_seconds=0.05)
    job_id = bench.create([line("a")])
    bench.plan(job_id)
    bench.lab.paused = True
    threads = start(bench)
    _until(lambda: bool(bench.lab.submitted))
    bench.worker.leaving.set()
    assert not threads.join(0.2)
    bench.worker.stopping.set()
    assert threads.join(5)
    (chunk,) = bench.chunks(job_id)
    assert (chunk.state, chunk.attempt, chunk.crashes) == (ChunkState.PENDING, 1, 0)


def test_planning_leaves_a_thread_for_the_engine_and_doubles_nothing(
    make_bench: Any, line: Line, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(reconcile_seconds=0.05)
    planned = bench.create([line("a")])
    bench.plan(planned)
    waiting = {bench.create([line("a")]) for _ in range(3)}
    leave, seen = threading.Event(), list[str]()

    def plan(worker: Any, job_id: str, allowance: Any) -> bool:
        seen.append(job_id)
        return leave.wait(timeout=20)

    monkeypatch.setattr("worker.process.threads.plan_job", plan)
    start(bench, job_threads=2)
    _until(lambda: bench.chunks(planned)[0].state == ChunkState.DONE)
    _until(lambda: len(seen) == 2)
    time.sleep(0.2)
    assert len(set(seen)) == 2, "both threads are busy, each with a job of its own"
    assert set(seen) <= waiting
    bench.worker.stopping.set()
    leave.set()


def test_a_job_that_fails_oddly_keeps_no_other_back(
    make_bench: Any, line: Line, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(reconcile_seconds=0.05)
    first, second = bench.create([line("a")]), bench.create([line("a")])
    from worker.plan.job import plan_job

    def plan(worker: Any, job_id: str, allowance: Any) -> bool:
        if job_id == first:
            raise RuntimeError("a bug")
        return plan_job(worker, job_id, allowance)

    monkeypatch.setattr("worker.process.threads.plan_job", plan)
    start(bench, job_threads=1)
    _until(lambda: bench.job(second).state != JobState.VALIDATING)
    assert bench.job(first).state == JobState.VALIDATING
