"""Whole jobs: every line exactly once, in order, whatever happens on the way."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from engine.errors import CheckpointError, ModelNotFound
from storage.database.states import ChunkState, JobState
from storage.jobs import jobs
from storage.registry import models
from worker.finish.finalizer import finalize_job
from worker.run.drain import drain

Line = Callable[..., dict[str, Any]]


def _ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["custom_id"] for row in rows]


def _text(row: dict[str, Any]) -> str:
    return str(row["response"]["body"]["choices"][0]["text"])


def _lines(line: Line, count: int) -> list[dict[str, Any]]:
    # Prompts in an order that is not the plan's.
    return [line(f"row{i}", [(i * 37) % 101 + 2, i % 3 + 2]) for i in range(count)]


@pytest.mark.parametrize(
    "limits",
    [{}, {"plan_window_lines": 17, "chunk_lines": 5}, {"chunk_tokens": 40}],
)
def test_a_job_answers_every_line_in_the_inputs_order(
    make_bench: Any, line: Line, limits: dict[str, int]
) -> None:
    bench = make_bench(**limits)
    lines = _lines(line, 150)
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


def test_skipped_bad_lines_become_error_lines_with_number_and_reason(
    bench: Any, line: Line
) -> None:
    lines: list[Any] = _lines(line, 10)
    lines[3] = b"{nope"
    lines[5] = line("row0")
    lines[7] = line("row7", temperature=9)
    lines[8] = line("row8", "w " * 70)
    job = bench.finish(bench.create(lines, on_invalid="skip"))
    assert job.state == JobState.COMPLETED
    assert (job.n_ok, job.n_err, job.n_invalid) == (6, 4, 4)
    errors = bench.read(job.err_key)
    found = [row["response"]["body"]["error"] for row in errors]
    assert [(error["line"], error["code"]) for error in found] == [
        (4, "invalid_json_line"),
        (6, "duplicate_custom_id"),
        (8, "invalid_value"),
        (9, "context_length_exceeded"),
    ]
    assert _ids(errors) == [None, "row0", "row7", "row8"]
    assert _ids(bench.read(job.out_key)) == ["row0", "row1", "row2", "row4", "row6", "row9"]


def test_a_bad_envelope_fails_the_batch_and_a_bad_body_does_not(
    make_bench: Any, line: Line
) -> None:
    bench = make_bench(max_reported_errors=2)
    bad = [b"{", line("a"), line("a"), {"custom_id": "b"}, line("c", temperature=9)]
    job = bench.finish(bench.create(bad))
    assert job.state == JobState.FAILED
    assert (job.n_invalid, len(job.errors)) == (3, 2)
    assert job.errors[0] == {
        "code": "invalid_json_line",
        "message": "This line is not parseable as valid JSON.",
        "param": None,
        "line": 1,
    }
    report = bench.read(f"results/{job.id}/1/report.jsonl")
    assert [(row["line"], row["code"]) for row in report] == [
        (1, "invalid_json_line"),
        (3, "duplicate_custom_id"),
        (4, "missing_required_parameter"),
    ]
    assert job.report_file_id is not None
    job = bench.finish(bench.create([line("a"), line("c", temperature=9)]))
    assert (job.state, job.n_ok, job.n_err) == (JobState.COMPLETED, 1, 1)


def test_a_batch_of_nothing_but_errors_completes_without_an_output_file(bench: Any) -> None:
    job = bench.finish(bench.create([b"{", b"["], on_invalid="skip"))
    assert (job.state, job.n_ok, job.n_err) == (JobState.COMPLETED, 0, 2)
    assert job.out_file_id is None
    assert bench.lab.starts == 0


@pytest.mark.parametrize(("lines", "code"), [([], "empty_file"), ([b"", b""], "empty_batch")])
def test_an_empty_input_fails_even_where_bad_lines_are_skipped(
    bench: Any, lines: list[bytes], code: str
) -> None:
    job = bench.finish(bench.create(lines, on_invalid="skip"))
    assert job.state == JobState.FAILED
    assert [error["code"] for error in job.errors] == [code]


def test_an_input_that_is_gone_fails_the_batch(bench: Any, line: Line) -> None:
    job_id = bench.create([line("a")])
    bench.worker.store.delete(bench.job(job_id).input_key)
    assert bench.finish(job_id).errors[0]["code"] == "input_modified"


def test_a_model_whose_files_are_gone_fails_the_batch(bench: Any, line: Line) -> None:
    def load(name: str, source: str) -> Any:
        raise ModelNotFound("There is no model at words: pull it.")

    object.__setattr__(bench.worker, "load_text_model", load)
    job = bench.finish(bench.create([line("a")]))
    assert job.errors[0]["code"] == "model_unavailable"
    assert "pull it" not in job.errors[0]["message"], "what the log says is not for clients"


def test_where_bad_lines_are_skipped_only_those_of_the_unusable_model_are(
    bench: Any, line: Line
) -> None:
    models.add(bench.worker.database, "other", "gone")
    load = bench.worker.load_text_model

    def load_one(name: str, source: str) -> Any:
        if name == "other":
            raise ModelNotFound("There is no model at /srv/gone.")
        return load(name, source)

    object.__setattr__(bench.worker, "load_text_model", load_one)
    lines = [line("a"), line("b", model="other"), line("c", model="other")]
    job = bench.finish(bench.create(lines, on_invalid="skip"))
    assert (job.state, job.n_ok, job.n_err) == (JobState.COMPLETED, 1, 2)
    errors = bench.read(job.err_key)
    assert _ids(errors) == ["b", "c"]
    for row in errors:
        error = row["response"]["body"]["error"]
        assert (error["code"], error["param"]) == ("model_unavailable", "model")
        assert "/srv" not in error["message"]


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


def test_the_next_chunk_is_claimed_before_the_engine_runs_dry(make_bench: Any, line: Line) -> None:
    bench = make_bench(chunk_lines=2)
    waiting: list[int] = []
    bench.lab.before_poll = lambda engine: waiting.append(len(engine._waiting))
    job = bench.finish(bench.create(_lines(line, 60)))
    assert job.n_ok == 60
    # But for the first poll and the end of the input there is always a full batch behind this one.
    assert min(waiting[1:-3]) >= bench.lab.make(None).max_num_seqs
    assert bench.lab.most_waiting <= 2 * 4 + 2
    assert bench.lab.flushes > 0


def test_an_engine_that_dies_is_restarted_and_nothing_is_lost(bench: Any, line: Line) -> None:
    deaths = iter([False, True])
    bench.lab.before_poll = lambda engine: engine.die() if next(deaths, False) else None
    job = bench.finish(bench.create(_lines(line, 90)))
    assert (job.state, job.n_ok) == (JobState.COMPLETED, 90)
    assert (bench.lab.deaths, bench.lab.starts) == (1, 2)
    assert _ids(bench.read(job.out_key)) == [f"row{i}" for i in range(90)]


def test_a_line_that_kills_the_engine_becomes_an_error_and_the_rest_is_answered(
    bench: Any, line: Line
) -> None:
    lines = _lines(line, 12)
    lines[5] = line("poison", [999])
    job = bench.finish(bench.create(lines))
    assert (job.state, job.n_ok, job.n_err) == (JobState.COMPLETED, 11, 1)
    (error,) = bench.read(job.err_key)
    assert error["custom_id"] == "poison"
    assert error["response"]["status_code"] == 500
    assert error["response"]["body"]["error"]["code"] == "engine_crashed"
    assert error["response"]["body"]["error"]["line"] == 6
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


def test_equal_lines_cut_apart_by_a_split_all_get_their_answer(bench: Any, line: Line) -> None:
    lines = [line(f"same{i}", "a b c") for i in range(6)] + [line("poison", [999])]
    job = bench.finish(bench.create(lines))
    assert (job.n_ok, job.n_err) == (6, 1)
    assert len({_text(row) for row in bench.read(job.out_key)}) == 1


@pytest.mark.parametrize("reason", ["cancelled", "expired"])
def test_a_job_that_is_stopped_keeps_what_is_done(make_bench: Any, line: Line, reason: str) -> None:
    bench = make_bench(chunk_lines=32, renew_seconds=0.02)
    job_id = bench.create(_lines(line, 120))
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


def test_a_worker_that_stops_gives_its_chunks_back_as_they_were(bench: Any, line: Line) -> None:
    bench.lab.paused = True
    job_id = bench.create(_lines(line, 100))
    bench.plan(job_id)
    bench.lab.before_poll = lambda engine: bench.worker.stopping.set()
    drain(bench.worker, "smollm2")
    chunks = bench.chunks(job_id)
    assert {chunk.state for chunk in chunks} == {ChunkState.PENDING}
    assert {chunk.crashes for chunk in chunks} == {0}
    assert {chunk.attempt for chunk in chunks} >= {1}


def test_a_chunk_that_went_to_another_worker_is_abandoned(make_bench: Any, line: Line) -> None:
    bench = make_bench(renew_seconds=0.02)
    job_id = bench.create(_lines(line, 20))
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


def test_wakeups_for_nothing_are_silent(bench: Any, line: Line) -> None:
    job = bench.finish(bench.create([line("a")]))
    bench.plan(job.id)
    finalize_job(bench.worker, job.id)
    finalize_job(bench.worker, "batch_none")
    assert drain(bench.worker, "smollm2") == 0
    assert bench.job(job.id) == job


def test_an_engine_that_cannot_start_rests_and_holds_nothing_against_the_lines(
    bench: Any, line: Line
) -> None:
    bench.lab.start_error = CheckpointError("A tensor is missing.")
    job_id = bench.create([line("a")])
    for _ in range(4):
        bench.step()
    assert bench.lab.starts == 1, "it is not tried again at once"
    (chunk,) = bench.chunks(job_id)
    assert (chunk.state, chunk.crashes) == (ChunkState.PENDING, 0)
    assert "A tensor is missing." in str(bench.worker.engines.failure("smollm2"))


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
    bench: Any, line: Line, spoil: Callable[[bytes], bytes]
) -> None:
    job_id = bench.create(_lines(line, 40))
    bench.plan(job_id)
    drain(bench.worker, "smollm2")
    store, key = bench.worker.store, bench.chunks(job_id)[0].part_key
    with store.reader(key) as stream:
        part = stream.read()
    store.put(key, spoil(part))
    for _ in range(3):
        bench.step()
        bench.sql("UPDATE job SET lease_exp = 0 WHERE lease_exp IS NOT NULL")
    job = bench.job(job_id)
    assert job.state == JobState.FAILED
    assert (job.out_file_id, job.err_file_id) == (None, None)


def test_two_models_in_one_batch_run_one_after_the_other(bench: Any, line: Line) -> None:
    models.add(bench.worker.database, "other", "more words")
    lines = _lines(line, 20)
    for row in lines[::2]:
        row["body"]["model"] = "other"
    job = bench.finish(bench.create(lines))
    assert job.model is None
    assert bench.lab.starts == 2
    output = bench.read(job.out_key)
    assert [row["response"]["body"]["model"] for row in output] == ["other", "smollm2"] * 10


@pytest.mark.parametrize("spoiled", [b"not a plan", None])
def test_a_job_whose_plan_is_lost_fails_soon_and_blocks_no_other(
    make_bench: Any, line: Line, spoiled: bytes | None
) -> None:
    bench = make_bench(chunk_lines=8)
    lost = bench.create(_lines(line, 20))
    bench.plan(lost)
    key = bench.chunks(lost)[0].plan_key
    bench.worker.store.delete(key)
    if spoiled is not None:
        bench.worker.store.put(key, spoiled)
    assert bench.finish(bench.create([line("b")])).n_ok == 1
    for _ in range(6):
        bench.step()
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
