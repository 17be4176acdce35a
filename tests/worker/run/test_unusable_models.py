"""Models that cannot be loaded: a fault of the files ends their lines, any other is waited for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from api.batch_view import batch_of
from engine.errors import CheckpointError, EngineError, ModelNotFound, OutOfCache
from storage.database.states import JobState
from storage.jobs import jobs
from storage.registry import models as model_rows
from worker.plan import job as plan_job_file

Line = Callable[..., dict[str, Any]]
MESSAGE = "The model 'other' cannot be loaded"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "srv"
    folder.mkdir()
    (folder / "model.gguf").write_text("damaged")
    return folder


@pytest.fixture
def bench(make_bench: Any, files: Path) -> Any:
    """A bench on which `broken`, an error or none, is why the engine of "other" does not start."""
    bench = make_bench(chunk_lines=4)
    model_rows.add(bench.worker.database, "other", str(files))
    bench.broken = None
    made = bench.lab.make

    def start(config: Any) -> Any:
        bench.lab.start_error = bench.broken if config.model == str(files) else None
        return made(config)

    bench.worker.engines._make = start
    return bench


def _create(bench: Any, line: Line, *models: str) -> str:
    rows = [line(f"{i}-{name}", f"w{i}", model=name) for i in range(6) for name in models]
    job_id: str = bench.create(rows)
    return job_id


def _waiting_for(bench: Any, job_id: str) -> Any:
    view = jobs.view(bench.worker.database, "default", job_id)
    return batch_of(view).tidemill.waiting_for


def _messages(bench: Any, job: Any) -> set[str]:
    rows = bench.read(job.err_key)
    assert all(row["custom_id"].endswith("-other") for row in rows)
    assert {row["response"]["body"]["error"]["code"] for row in rows} == {"model_unavailable"}
    return {row["response"]["body"]["error"]["message"] for row in rows}


def test_a_fault_of_the_files_ends_the_lines_of_that_model_alone(
    bench: Any, line: Line, files: Path
) -> None:
    bench.broken = CheckpointError(f"{files}/model.gguf is truncated.")
    job = bench.finish(_create(bench, line, "smollm2", "other"))
    assert (job.state, job.n_ok, job.n_err) == (JobState.COMPLETED, 6, 6)
    assert _messages(bench, job) == {f"{MESSAGE}: other/model.gguf is truncated."}
    assert bench.lab.starts == 2, "of several chunks the first is told, and the others know"
    assert bench.worker.engines.failures == {}, "nobody waits for it"


def test_a_model_that_was_mended_runs_without_a_restart(
    bench: Any, line: Line, files: Path
) -> None:
    bench.broken = CheckpointError("It is truncated.")
    assert bench.finish(_create(bench, line, "other")).n_err == 6
    bench.broken = None
    assert bench.finish(_create(bench, line, "other")).n_err == 6, "its files are as they were"
    (files / "model.gguf").write_text("another copy")
    assert bench.finish(_create(bench, line, "other")).n_ok == 6


@pytest.mark.parametrize(
    "error", [OutOfCache("The cache is too small."), ModelNotFound("There is no model.")]
)
def test_a_fault_that_may_pass_is_waited_for_and_told(
    bench: Any, line: Line, files: Path, error: EngineError
) -> None:
    bench.broken = error
    first = _create(bench, line, "other")
    for _ in range(4):
        bench.run_due()
    later = _create(bench, line, "other")
    for _ in range(2):
        bench.run_due()
    for job_id in (first, later):
        told = _waiting_for(bench, job_id)
        assert (told.model, told.code) == ("other", error.code)
        assert told.message == f"{MESSAGE} at the moment: {error}"
        assert bench.job(job_id).errors is None
    assert list(bench.worker.engines.failures) == ["other"]
    assert bench.lab.starts == 1, "it rests"
    bench.broken = None
    (files / "more.json").touch()  # whatever changes there is worth a try at once
    assert bench.finish(first).n_ok == 6
    assert bench.finish(later).n_ok == 6
    assert bench.job(first).waiting_for is None


def _load(bench: Any, error: EngineError) -> dict[str, EngineError | None]:
    """Why the planner cannot load "other"; set to ``None`` it can."""
    given: dict[str, EngineError | None] = {"error": error}
    load = bench.worker.load_text_model

    def load_one(name: str, source: str) -> Any:
        problem = given["error"]
        if name == "other" and problem is not None:
            raise problem
        return load(name, source)

    object.__setattr__(bench.worker, "load_text_model", load_one)
    return given


def test_planning_waits_for_files_that_are_not_there_and_says_so(
    bench: Any, line: Line, files: Path
) -> None:
    given = _load(bench, ModelNotFound(f"There is no model '{files}'."))
    job_id = _create(bench, line, "smollm2", "other")
    assert bench.plan(job_id).state == JobState.VALIDATING
    told = _waiting_for(bench, job_id)
    assert (told.model, told.code) == ("other", "model_not_found")
    assert told.message == f"{MESSAGE} at the moment: There is no model 'other'."
    assert bench.plan(job_id).plan_epoch == 1, "not again at once"
    given["error"] = None
    bench.sql("UPDATE job SET lease_exp = NULL")
    job = bench.finish(job_id)
    assert (job.n_ok, job.n_err, job.waiting_for) == (12, 0, None)


def test_it_does_not_wait_for_ever(bench: Any, line: Line) -> None:
    _load(bench, ModelNotFound("There is no model."))
    job_id = _create(bench, line, "smollm2", "other")
    bench.plan(job_id)
    seconds = bench.worker.settings.worker.model_wait_seconds
    before = f"json_set(waiting_for, '$.since', {bench.job(job_id).created_at - seconds})"
    bench.sql(f"UPDATE job SET lease_exp = NULL, waiting_for = {before}")
    job = bench.finish(job_id)
    assert (job.n_ok, job.n_err) == (6, 6)
    assert _messages(bench, job) == {f"{MESSAGE} at the moment: There is no model."}


def test_the_longer_it_waits_the_rarer_it_tries(bench: Any, line: Line) -> None:
    _load(bench, ModelNotFound("There is no model."))
    job_id = _create(bench, line, "other")
    pauses = []
    for waited in (0, 60, 200):
        since = f"json_set(waiting_for, '$.since', created_at - {waited})"
        bench.sql(f"UPDATE job SET lease_exp = NULL, waiting_for = {since}")
        began = bench.job(job_id).created_at
        pauses.append((bench.plan(job_id).lease_exp or 0.0) - began)
    longest = plan_job_file.LONGEST_RETRY_SECONDS
    assert pauses == pytest.approx([5, 30, longest], abs=2)
