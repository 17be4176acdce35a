"""The drain loop: the engine always has work, and no death, stop or lost plan costs a line."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from engine.errors import OutOfCache
from storage.database.states import ChunkState, JobState
from worker.run.drain import drain

Line = Callable[..., dict[str, Any]]
MakeLines = Callable[[int], list[dict[str, Any]]]


def _ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["custom_id"] for row in rows]


def _text(row: dict[str, Any]) -> str:
    return str(row["response"]["body"]["choices"][0]["text"])


def test_the_next_chunk_is_claimed_before_the_engine_runs_dry(
    make_bench: Any, make_lines: MakeLines
) -> None:
    bench = make_bench(chunk_lines=2)
    waiting: list[int] = []
    bench.lab.before_poll = lambda engine: waiting.append(len(engine._waiting))
    job = bench.finish(bench.create(make_lines(60)))
    assert job.n_ok == 60
    # But for the first poll and the end of the input there is always a full batch behind this one.
    assert min(waiting[1:-3]) >= bench.lab.make(None).max_num_seqs
    assert bench.lab.most_waiting <= 2 * 4 + 2
    assert bench.lab.flushes > 0


def test_an_engine_that_dies_is_restarted_and_nothing_is_lost(
    bench: Any, make_lines: MakeLines
) -> None:
    deaths = iter([False, True])
    bench.lab.before_poll = lambda engine: engine.die() if next(deaths, False) else None
    job = bench.finish(bench.create(make_lines(90)))
    assert (job.state, job.n_ok) == (JobState.COMPLETED, 90)
    assert (bench.lab.deaths, bench.lab.starts) == (1, 2)
    assert _ids(bench.read(job.out_key)) == [f"row{i}" for i in range(90)]


def test_a_line_that_kills_the_engine_becomes_an_error_and_the_rest_is_run(
    bench: Any, line: Line, make_lines: MakeLines
) -> None:
    lines = make_lines(12)
    lines[5] = line("poison", [999])
    job = bench.finish(bench.create(lines))
    assert (job.state, job.n_ok, job.n_err) == (JobState.COMPLETED, 11, 1)
    (error,) = bench.read(job.err_key)
    assert error["custom_id"] == "poison"
    assert error["response"]["status_code"] == 500
    assert error["response"]["body"]["error"]["code"] == "engine_crashed"
    assert error["tidemill"]["line"] == 6
    message = error["response"]["body"]["error"]["message"]
    assert message == "The engine ended each of the 3 times that it ran this line."


def test_a_line_whose_hosts_died_is_not_blamed_on_the_engine(bench: Any, line: Line) -> None:
    job_id = bench.create([line("a")])
    bench.plan(job_id)
    bench.sql("UPDATE chunk SET crashes = 3, engine_crashes = 1")
    (error,) = bench.read(bench.finish(job_id).err_key)
    assert error["response"]["body"]["error"]["message"] == (
        "This line was taken up 3 times, and each time its worker or engine ended, or lost its "
        "lease, before there was an answer."
    )


def test_equal_lines_cut_apart_by_a_split_all_get_their_response(bench: Any, line: Line) -> None:
    lines = [line(f"same{i}", "a b c") for i in range(6)] + [line("poison", [999])]
    job = bench.finish(bench.create(lines))
    assert (job.n_ok, job.n_err) == (6, 1)
    assert len({_text(row) for row in bench.read(job.out_key)}) == 1


def test_a_worker_that_stops_gives_its_chunks_back_as_they_were(
    bench: Any, make_lines: MakeLines
) -> None:
    bench.lab.paused = True
    job_id = bench.create(make_lines(100))
    bench.plan(job_id)
    bench.lab.before_poll = lambda engine: bench.worker.stopping.set()
    drain(bench.worker, "smollm2")
    chunks = bench.chunks(job_id)
    assert {chunk.state for chunk in chunks} == {ChunkState.PENDING}
    assert {chunk.crashes for chunk in chunks} == {0}
    assert {chunk.attempt for chunk in chunks} >= {1}


def test_a_chunk_that_went_to_another_worker_is_abandoned(
    make_bench: Any, make_lines: MakeLines
) -> None:
    bench = make_bench(renew_seconds=0.02)
    job_id = bench.create(make_lines(20))
    bench.plan(job_id)
    bench.lab.paused = True
    taken = threading.Event()

    def take_away(engine: Any) -> None:
        if not taken.is_set():
            bench.sql("UPDATE chunk SET attempt = attempt + 1, owner = 'another'")
            taken.set()

    bench.lab.before_poll = take_away
    assert drain(bench.worker, "smollm2") == 0
    (chunk,) = bench.chunks(job_id)
    assert (chunk.state, chunk.owner, chunk.attempt) == (ChunkState.LEASED, "another", 2)
    assert list(bench.worker.store.list("parts/")) == []
    assert bench.lab.cancelled


def test_a_doubled_wakeup_returns_at_once(bench: Any, line: Line) -> None:
    bench.plan(bench.create([line("a")]))
    with bench.worker.draining:
        assert drain(bench.worker, "smollm2") == 0
    assert drain(bench.worker, "smollm2") == 1


def test_an_engine_that_cannot_start_rests_and_holds_nothing_against_the_lines(
    bench: Any, line: Line
) -> None:
    bench.lab.start_error = OutOfCache("The KV cache is too small.")
    job_id = bench.create([line("a")])
    for _ in range(4):
        bench.run_due()
    assert bench.lab.starts == 1, "it is not tried again at once"
    (chunk,) = bench.chunks(job_id)
    assert (chunk.state, chunk.crashes) == (ChunkState.PENDING, 0)
    assert "too small" in str(bench.worker.engines.failure("smollm2"))


@pytest.mark.parametrize("spoiled", [b"not a plan", None])
def test_a_job_whose_plan_is_lost_fails_soon_and_blocks_no_other(
    make_bench: Any, line: Line, make_lines: MakeLines, spoiled: bytes | None
) -> None:
    bench = make_bench(chunk_lines=8)
    lost = bench.create(make_lines(20))
    bench.plan(lost)
    key = bench.chunks(lost)[0].plan_key
    bench.worker.store.delete(key)
    if spoiled is not None:
        bench.worker.store.put(key, spoiled)
    assert bench.finish(bench.create([line("b")])).n_ok == 1
    for _ in range(6):
        bench.run_due()
    job = bench.job(lost)
    assert job.state == JobState.FAILED
    assert [error["code"] for error in job.errors] == ["plan_lost"]
    assert len(bench.chunks(lost)) == 3, "nothing was split"


def test_a_poison_line_whose_plan_is_lost_fails_its_job(bench: Any, line: Line) -> None:
    lost = bench.create([line("a")])
    bench.plan(lost)
    bench.worker.store.delete(bench.chunks(lost)[0].plan_key)
    bench.sql("UPDATE chunk SET crashes = 9, attempt = 9")
    assert bench.finish(lost).errors[0]["code"] == "plan_lost"
