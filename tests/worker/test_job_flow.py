"""Whole jobs: every line exactly once, in order, whatever happens on the way."""

from collections.abc import Callable
from typing import Any

import pytest

from storage.database.states import JobState
from storage.jobs import jobs
from storage.registry import models
from worker.finish.finalizer import finalize_job
from worker.run.drain import drain

Line = Callable[..., dict[str, Any]]
MakeLines = Callable[[int], list[dict[str, Any]]]


def _ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["custom_id"] for row in rows]


def _text(row: dict[str, Any]) -> str:
    return str(row["response"]["body"]["choices"][0]["text"])


@pytest.mark.parametrize(
    "limits",
    [{}, {"plan_window_lines": 17, "chunk_lines": 5}, {"chunk_tokens": 40}],
)
def test_a_job_has_a_result_for_every_line_in_the_inputs_order(
    make_bench: Any, make_lines: MakeLines, limits: dict[str, int]
) -> None:
    bench = make_bench(**limits)
    lines = make_lines(150)
    job = bench.finish(bench.create(lines))
    assert job.state == JobState.COMPLETED
    assert (job.n_lines, job.n_ok, job.n_err) == (150, 150, 0)
    assert job.err_file_id is None
    assert job.model == "smollm2"
    output = bench.read(job.out_key)
    assert _ids(output) == [row["custom_id"] for row in lines]
    assert [_text(row) for row in output] == [
        " ".join(map(str, row["body"]["prompt"])) for row in lines
    ]
    assert len(bench.chunks(job.id)) > 1
    usage = [row["response"]["body"]["usage"] for row in output]
    assert job.prompt_tokens == sum(count["prompt_tokens"] for count in usage)
    assert job.completion_tokens == sum(count["completion_tokens"] for count in usage)
    assert job.cached_tokens == sum(
        count["prompt_tokens_details"]["cached_tokens"] for count in usage
    )


def test_equal_deterministic_lines_are_computed_once(bench: Any, line: Line) -> None:
    lines = [line(f"same{i}", "a b c") for i in range(50)]
    lines += [line(f"drawn{i}", "a b c", temperature=1) for i in range(3)]
    lines += [line(f"seeded{i}", "a b c", temperature=1, seed=4) for i in range(3)]
    job = bench.finish(bench.create(lines))
    assert len(bench.lab.submitted) == 1 + 3 + 1
    output = bench.read(job.out_key)
    assert _ids(output) == [row["custom_id"] for row in lines]
    assert len({row["id"] for row in output}) == len(lines)
    cached = [
        row["response"]["body"]["usage"]["prompt_tokens_details"]["cached_tokens"]
        for row in output[:50]
    ]
    assert cached == [1] + [4] * 49
    assert job.plan["duplicate_lines"] == 49 + 2


@pytest.mark.parametrize("reason", ["cancelled", "expired"])
def test_a_job_that_is_stopped_keeps_what_is_done(
    make_bench: Any, make_lines: MakeLines, reason: str
) -> None:
    bench = make_bench(chunk_lines=32, renew_seconds=0.02)
    job_id = bench.create(make_lines(120))
    polls = 0

    def stop_soon(engine: Any) -> None:
        nonlocal polls
        polls += 1
        if polls == 5:
            bench.lab.paused = True
            if reason == "cancelled":
                jobs.request_stop(bench.worker.database, "default", job_id)
            else:
                bench.sql("UPDATE job SET cancel = 'expired'")

    bench.lab.before_poll = stop_soon
    job = bench.finish(job_id)
    assert job.state == reason
    output, errors = bench.read(job.out_key), bench.read(job.err_key)
    assert len(output) == 16
    assert len(output) + len(errors) == 120
    assert job.n_ok + job.n_err + job.n_cancelled == 120
    assert sorted(_ids(output) + _ids(errors)) == sorted(f"row{i}" for i in range(120))
    assert {row["error"]["code"] for row in errors} == {f"batch_{reason}"}
    assert {row["response"] for row in errors} == {None}
    assert bench.lab.cancelled


def test_wakeups_for_nothing_are_silent(bench: Any, line: Line) -> None:
    job = bench.finish(bench.create([line("a")]))
    bench.plan(job.id)
    finalize_job(bench.worker, job.id)
    finalize_job(bench.worker, "batch_none")
    assert drain(bench.worker, "smollm2") == 0
    assert bench.job(job.id) == job


@pytest.mark.parametrize(
    "spoil",
    [
        lambda part: part[:-90],
        lambda part: part[: part.rindex(b'{"line"')],
        lambda part: part.replace(b"stop", b"STOP"),
        lambda part: part + part,
    ],
)
def test_results_that_do_not_add_up_are_never_published(
    bench: Any, make_lines: MakeLines, spoil: Callable[[bytes], bytes]
) -> None:
    job_id = bench.create(make_lines(40))
    bench.plan(job_id)
    drain(bench.worker, "smollm2")
    store, key = bench.worker.store, bench.chunks(job_id)[0].part_key
    with store.reader(key) as stream:
        part = stream.read()
    store.put(key, spoil(part))
    for _ in range(3):
        bench.run_due()
        bench.sql("UPDATE job SET lease_exp = 0 WHERE lease_exp IS NOT NULL")
    job = bench.job(job_id)
    assert job.state == JobState.FAILED
    assert (job.out_file_id, job.err_file_id) == (None, None)


def test_two_models_in_one_batch_run_one_after_the_other(bench: Any, make_lines: MakeLines) -> None:
    models.add(bench.worker.database, "other", "more words")
    lines = make_lines(20)
    for row in lines[::2]:
        row["body"]["model"] = "other"
    job = bench.finish(bench.create(lines))
    assert job.model is None
    assert bench.lab.starts == 2
    output = bench.read(job.out_key)
    assert [row["response"]["body"]["model"] for row in output] == ["other", "smollm2"] * 10
