"""Every second and step of an engine at work belongs to some chunk, and none to two."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from storage.database.states import ChunkState
from worker.run.drain import drain

MakeLines = Callable[[int], list[dict[str, Any]]]
POLL_SECONDS = 0.002


@pytest.mark.parametrize("chunk_lines", [3, 32])
def test_chunks_that_overlap_share_the_engines_time(
    make_bench: Any, make_lines: MakeLines, chunk_lines: int
) -> None:
    bench = make_bench(chunk_lines=chunk_lines)
    bench.lab.before_poll = lambda engine: time.sleep(POLL_SECONDS)
    job_id = bench.create(make_lines(64))
    bench.plan(job_id)
    began = time.monotonic()
    assert drain(bench.worker, "smollm2") > 1
    passed = time.monotonic() - began
    chunks = bench.chunks(job_id)
    assert {chunk.device for chunk in chunks} == {"cpu, 1 thread, none"}
    assert sum(chunk.steps for chunk in chunks) == pytest.approx(bench.lab.polls)
    worked = sum(chunk.seconds for chunk in chunks)
    assert bench.lab.polls * POLL_SECONDS <= worked <= passed
    # Equal chunks take about equal time, though they end one right after the other.
    assert max(chunk.steps for chunk in chunks) < 2.5 * min(chunk.steps for chunk in chunks)


def test_time_without_work_is_nobodys(bench: Any, make_lines: MakeLines) -> None:
    jobs = [bench.create(make_lines(8)) for _ in range(2)]
    for job_id in jobs:
        bench.plan(job_id)
        assert drain(bench.worker, "smollm2") == 1
        time.sleep(0.15)
    for job_id in jobs:
        (chunk,) = bench.chunks(job_id)
        assert chunk.seconds < 0.15
        assert chunk.steps == 2


def test_what_was_stopped_or_never_ran_teaches_nothing(
    make_bench: Any, make_lines: MakeLines
) -> None:
    bench = make_bench(renew_seconds=0.02)
    lines: list[Any] = [b"{nope", *make_lines(8)]
    job_id = bench.create(lines, on_invalid="skip")
    bench.plan(job_id)

    def stop(engine: Any) -> None:
        bench.lab.paused = True
        bench.sql("UPDATE job SET cancel = 'cancelled'")

    bench.lab.before_poll = stop
    bench.finish(job_id)
    done = [chunk for chunk in bench.chunks(job_id) if chunk.state == ChunkState.DONE]
    assert {chunk.device for chunk in done} == {None}


def test_an_output_that_several_lines_get_is_generated_once(bench: Any, line: Any) -> None:
    lines = [line(f"same{i}", "a b c") for i in range(6)] + [line("other", ["x y", "x y", "z"])]
    job_id = bench.create(lines)
    bench.finish(job_id)
    (chunk,) = bench.chunks(job_id)
    # The engine of the tests gives two tokens for a prompt.
    assert (chunk.completion_tokens, chunk.generated_tokens) == (2 * (6 + 3), 2 * (1 + 2))
