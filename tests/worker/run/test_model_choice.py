"""A worker of several models: the most urgent first, and no engine loaded for nothing."""

from collections.abc import Callable
from typing import Any

import pytest

from storage.database.states import JobState
from storage.registry import models as model_rows
from worker.run.drain import drain
from worker.run.model_choice import ModelChoice

Line = Callable[..., dict[str, Any]]


def _job(bench: Any, line: Line, model: str, priority: int, lines: int = 4) -> str:
    rows = [line(f"row{i}", f"{model} {priority} {i}") for i in range(lines)]
    for row in rows:
        row["body"]["model"] = model
    job_id: str = bench.create(rows)
    bench.sql(f"UPDATE job SET priority = {priority} WHERE id = '{job_id}'")
    bench.plan(job_id)
    return job_id


def _models_run(bench: Any) -> list[str]:
    """The models in the order in which the engine had them, each change once."""
    chunks = {c.id: c.model for job_id in bench.jobs for c in bench.chunks(job_id)}
    order: list[str] = []
    for request in bench.lab.submitted:
        model = chunks[request.id.split("/")[0]]
        if order[-1:] != [model]:
            order.append(model)
    return order


def _bench(make_bench: Any, **changes: Any) -> Any:
    bench = make_bench(**changes)
    model_rows.add(bench.worker.database, "other", "other-words")
    bench.jobs = []
    return bench


def test_the_most_urgent_model_comes_first(make_bench: Any, line: Line) -> None:
    bench = _bench(make_bench)
    bench.jobs = [_job(bench, line, "smollm2", 0), _job(bench, line, "other", 5)]
    assert drain(bench.worker) == 2
    assert _models_run(bench) == ["other", "smollm2"]


def test_an_urgent_job_of_another_model_does_not_wait_until_this_one_is_dry(
    make_bench: Any, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A look at the rows is otherwise up to a second old, and the first model done by then.
    monkeypatch.setattr("worker.run.model_choice.MAX_AGE_SECONDS", 0.0)
    bench = _bench(make_bench, chunk_lines=8)
    bench.jobs = [_job(bench, line, "smollm2", 0, lines=80)]

    def later(engine: Any) -> None:
        if len(bench.jobs) == 1:
            bench.jobs.append(_job(bench, line, "other", 5))

    bench.lab.before_poll = later
    assert drain(bench.worker) > 0
    assert _models_run(bench) == ["smollm2", "other", "smollm2"]


def test_a_loaded_model_stays_among_its_equals(make_bench: Any, line: Line) -> None:
    bench = _bench(make_bench)
    bench.jobs = [_job(bench, line, "other", 0)]
    assert drain(bench.worker) == 1
    bench.jobs += [_job(bench, line, "smollm2", 0), _job(bench, line, "other", 0)]
    bench.lab.submitted.clear()
    assert drain(bench.worker) == 2
    assert _models_run(bench) == ["other", "smollm2"]
    assert bench.lab.starts == 2


def test_another_model_follows_only_when_the_engine_has_no_request_left(
    make_bench: Any, line: Line
) -> None:
    bench = _bench(make_bench)
    _job(bench, line, "smollm2", 0)
    choice = ModelChoice(bench.worker, None)
    assert choice.next(switch=True) == "smollm2"
    _job(bench, line, "other", 5)
    choice.refresh()
    assert choice.next(switch=False) is None
    assert choice.next(switch=True) == "other"


def test_models_that_are_not_served_are_left_alone(make_bench: Any, line: Line) -> None:
    bench = _bench(make_bench)
    mine, others = _job(bench, line, "smollm2", 0), _job(bench, line, "other", 5)
    assert drain(bench.worker, ["smollm2"]) == 1
    (left,) = bench.chunks(others)
    assert (left.state, left.attempt) == ("pending", 0)
    assert bench.finish(mine).state == JobState.COMPLETED


def test_a_model_whose_engine_does_not_start_lets_the_others_run(
    make_bench: Any, line: Line
) -> None:
    from engine.errors import OutOfCache

    bench = _bench(make_bench)
    broken, sound = _job(bench, line, "other", 5), _job(bench, line, "smollm2", 0)
    made = bench.lab.make

    def start(config: Any) -> Any:
        bench.lab.start_error = (
            OutOfCache("The cache is too small.") if config.model == "other-words" else None
        )
        return made(config)

    bench.worker.engines._make = start
    assert drain(bench.worker) == 1
    assert bench.chunks(sound)[0].state == "done"
    (chunk,) = bench.chunks(broken)
    assert (chunk.state, chunk.crashes) == ("pending", 0)
