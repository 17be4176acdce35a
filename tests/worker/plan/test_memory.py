"""Planning and finalizing in memory that does not grow with the number of lines."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from storage.database.states import JobState
from worker.finish.finalizer import finalize_job
from worker.plan.job import plan_job
from worker.run.drain import drain

WINDOW = 500
FEW, MANY = 4 * WINDOW, 16 * WINDOW


def _peak(work: Callable[..., object], *args: Any) -> int:
    tracemalloc.start()
    try:
        work(*args)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _peaks(bench: Any, line: Callable[..., dict[str, Any]], count: int) -> tuple[int, int]:
    """Peak bytes of planning and of finalizing a job of this many lines."""
    lines = [line(f"row{i}", f"say {i} " + "w " * 40) for i in range(count)]
    job_id = bench.create(lines)
    del lines
    planning = _peak(plan_job, bench.worker, job_id)
    drain(bench.worker, "smollm2")
    bench.lab.submitted.clear()
    bench.sql("UPDATE job SET state = 'finalizing' WHERE state = 'running'")
    finalizing = _peak(finalize_job, bench.worker, job_id)
    job = bench.job(job_id)
    assert (job.state, job.n_ok) == (JobState.COMPLETED, count)
    return planning, finalizing


@pytest.mark.slow
def test_four_times_the_lines_take_the_same_memory(make_bench: Any, line: Any) -> None:
    bench = make_bench(plan_window_lines=WINDOW, chunk_lines=100)
    _peaks(bench, line, WINDOW)  # what is loaded at first use counts for neither
    few, many = _peaks(bench, line, FEW), _peaks(bench, line, MANY)
    assert many[0] < 1.25 * few[0], "planning"
    assert many[1] < 1.25 * few[1], "finalizing"
