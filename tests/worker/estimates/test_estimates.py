"""What a job is expected to cost, from its plan to what came of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage.database.states import JobState
from storage.estimates.roofline import Size
from worker.estimates import make
from worker.estimates.machine import device_of, gpu_name, measured_processor
from worker.estimates.samples import output_lengths
from worker.estimates.sizes import UNKNOWN, size_of
from worker.run.drain import drain

Line = Callable[..., dict[str, Any]]
MakeLines = Callable[[int], list[dict[str, Any]]]


def objects(bench: Any) -> list[str]:
    return [
        info.key
        for prefix in ("plans/", "parts/", "results/")
        for info in bench.worker.store.list(prefix)
    ]


def test_an_estimate_counts_exactly_and_runs_nothing(bench: Any, line: Line) -> None:
    prefix = list(range(2, 34))
    lines = [line(f"row{i}", [*prefix, 40 + i, 41], max_tokens=8) for i in range(6)]
    lines += [line("same", [*prefix, 40, 41], max_tokens=8)]
    job = bench.plan(bench.create(lines, estimate=True))
    assert (job.state, job.n_lines, job.out_key, job.err_key) == ("completed", 0, None, None)
    found = job.estimate
    counted = {
        "rows": 7,
        "invalid_rows": 0,
        "duplicate_rows": 1,
        "prompt_tokens": 7 * 34,
        "duplicate_tokens": 34,
        "prefix_tokens": 5 * 32,
    }
    assert {name: found[name] for name in counted} == counted
    assert found["output_tokens"] == {
        "expected": 56,
        "low": 7,
        "high": 56,
        "most": 56,
        "source": "limit",
        "rows_seen": 0,
    }
    assert found["device_seconds"]["source"] == "roofline"
    assert [volume["rows"] for volume in found["volumes"]] == [7, 14, 21]
    assert found["start_seconds"] > 0, "no engine runs yet"
    seconds = [volume["device_seconds"] for volume in found["volumes"]]
    assert found["volumes"][0]["seconds"] == pytest.approx(seconds[0] + found["start_seconds"])
    assert 0 < seconds[0] < seconds[1] < seconds[2] < 3 * seconds[0]
    assert bench.chunks(job.id) == []
    assert objects(bench) == []
    assert bench.lab.submitted == []


def test_the_same_rows_give_the_same_counts_when_they_are_run(
    bench: Any, line: Line, make_lines: MakeLines
) -> None:
    lines: list[Any] = [*make_lines(90), line("again", [2, 2]), line("again2", [2, 2])]
    asked = bench.plan(bench.create(lines, estimate=True))
    job = bench.finish(bench.create(lines))
    assert job.state == JobState.COMPLETED
    assert asked.plan == job.plan | {"chunks": 0}
    for name in ("rows", "duplicate_rows", "prompt_tokens", "prefix_tokens"):
        assert asked.estimate[name] == job.estimate[name]
    assert asked.estimate["prompt_tokens"] == job.prompt_tokens


def test_bad_rows_are_told_and_do_not_count(make_bench: Any, line: Line) -> None:
    bench = make_bench(max_reported_errors=2)
    lines = [b"{nope", line("a"), line("b", temperature=9), line("c", temperature=9)]
    job = bench.plan(bench.create(lines, estimate=True, on_invalid="skip"))
    assert (job.state, job.n_invalid) == ("completed", 3)
    assert (job.estimate["rows"], job.estimate["invalid_rows"]) == (4, 3)
    assert [(error["line"], error["code"]) for error in job.errors] == [
        (1, "invalid_json_line"),
        (3, "invalid_value"),
    ]
    assert bench.plan(bench.create(lines, estimate=True)).state == "failed"
    hopeless = bench.plan(bench.create([b"{"], estimate=True, on_invalid="skip"))
    assert (hopeless.state, hopeless.estimate["rows"]) == ("completed", 1)
    assert hopeless.estimate["device_seconds"]["expected"] == 0


def test_what_ran_teaches_what_comes(bench: Any, line: Line) -> None:
    first = [line(f"row{i}", f"Translate into French: {i} words", max_tokens=16) for i in range(40)]
    again = [line(f"row{i}", f"Translate into French: {i} names", max_tokens=16) for i in range(80)]
    job = bench.finish(bench.create(first))
    bench.sql("UPDATE chunk SET seconds = 2.0, steps = 10, done_at = 1.0")
    found = bench.plan(bench.create(again, estimate=True)).estimate
    # Each prompt gets two tokens from the engine of the tests.
    assert job.completion_tokens == 80
    output = found["output_tokens"]
    assert (output["source"], output["expected"], output["rows_seen"]) == ("history", 160, 40)
    assert found["start_seconds"] == 0.0
    time = found["device_seconds"]
    assert (time["source"], time["runs_seen"]) == ("measured", 1)
    assert time["devices"] == ["cpu, 1 thread, none"]
    chunks = len(bench.chunks(job.id))
    assert time["expected"] == pytest.approx(2 * 2.0 * chunks, rel=0.35)
    assert time["low"] < time["expected"] < time["high"]


def test_an_estimate_that_fails_costs_a_job_nothing_else(
    bench: Any, make_lines: MakeLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(make, "estimate", broken)
    job = bench.finish(bench.create(make_lines(5)))
    assert (job.state, job.n_ok, job.estimate) == (JobState.COMPLETED, 5, None)
    with pytest.raises(ZeroDivisionError):
        bench.plan(bench.create(make_lines(5), estimate=True))


def test_a_sample_comes_before_history(bench: Any, line: Line, make_lines: MakeLines) -> None:
    lines = [line(f"row{i}", f"Translate into French: {i} words", max_tokens=16) for i in range(40)]
    bench.finish(bench.create(lines))
    sample = bench.finish(bench.create([line(f"s{i}", ["a b", "c d"]) for i in range(5)]))
    assert output_lengths(bench.worker.store, sample) == [4] * 5
    options: dict[str, Any] = {"estimate": True, "sample": sample.id}
    output = bench.plan(bench.create(lines, **options)).estimate["output_tokens"]
    assert (output["source"], output["expected"], output["rows_seen"]) == ("sample", 160, 5)
    bench.worker.store.delete(sample.out_key)
    output = bench.plan(bench.create(lines, **options)).estimate["output_tokens"]
    assert output["source"] == "history"


def test_a_price_and_what_runs_before(make_bench: Any, make_lines: MakeLines) -> None:
    bench = make_bench(device_price_per_hour=3.5, device="cpu,cpu")
    running = bench.plan(bench.create(make_lines(40)))
    found = bench.plan(bench.create(make_lines(10), estimate=True)).estimate
    assert found["price_per_hour"] == 3.5
    before = running.estimate["device_seconds"]["expected"]
    assert found["ahead_seconds"] == pytest.approx(before / 2, abs=0.001)
    first = found["volumes"][0]
    assert first["seconds"] - found["start_seconds"] == pytest.approx(
        first["device_seconds"] / 2, abs=0.002
    )


def test_an_engine_of_any_device_is_one_that_runs(make_bench: Any, make_lines: MakeLines) -> None:
    bench = make_bench(device="cpu,cpu")
    _, second = bench.worker.by_device()
    bench.plan(bench.create(make_lines(5)))
    drain(second, "smollm2")
    assert bench.worker.engines.resident is None
    found = bench.plan(bench.create(make_lines(5), estimate=True)).estimate
    assert found["start_seconds"] == 0.0


def test_a_models_size_is_read_from_its_headers(tmp_path: Path) -> None:
    small = size_of("smollm2", on_gpu=False)
    assert 134e6 < small.parameters < 136e6
    assert size_of("smollm2", on_gpu=True) == Size(small.parameters, 2 * small.parameters)
    assert size_of(str(tmp_path / "nothing"), on_gpu=True) == UNKNOWN


def test_a_gpu_is_known_by_its_drivers_files(tmp_path: Path) -> None:
    assert gpu_name(tmp_path) == ""
    (tmp_path / "0000:01:00.0").mkdir()
    (tmp_path / "0000:01:00.0" / "information").write_text("Model: \t\t NVIDIA H200\nIRQ: 7\n")
    assert gpu_name(tmp_path) == "NVIDIA H200"
    assert device_of("cuda:0", 1, measure=False).gpu
    assert not device_of("cpu", 1, measure=False).gpu
    assert not device_of("auto", 0, measure=False).gpu


def test_a_processor_is_measured_once() -> None:
    found = measured_processor()
    assert measured_processor() is found
    assert 1e9 < found.operations < 1e14
    assert 1e8 < found.bandwidth < 1e13
