"""What a scrape tells of a worker and of the work that waits."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from storage.database.connection import Database
from worker.metrics import BacklogCollector

Line = Callable[..., dict[str, Any]]


def backlog(database: Database) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(BacklogCollector(database))
    return registry


@pytest.fixture
def away() -> Iterator[Database]:
    database = Database("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    yield database
    database.close()


def test_the_backlog_follows_the_job(bench: Any, line: Line) -> None:
    registry = backlog(bench.worker.database)
    assert registry.get_sample_value("tidemill_jobs", {"state": "validating"}) == 0
    job_id = bench.create([line(f"row{i}", [i + 2]) for i in range(9)])
    assert registry.get_sample_value("tidemill_jobs", {"state": "validating"}) == 1
    bench.plan(job_id)
    waiting = {"model": "smollm2", "state": "pending"}
    assert registry.get_sample_value("tidemill_backlog_lines", waiting) == 9
    assert registry.get_sample_value("tidemill_backlog_prompt_tokens", waiting) == 9
    bench.finish(job_id)
    assert registry.get_sample_value("tidemill_backlog_lines", waiting) == 0
    assert registry.get_sample_value("tidemill_database_up") == 1


def test_a_worker_counts_what_it_commits(bench: Any, line: Line) -> None:
    job_id = bench.create([line("good"), line("also", [3]), line("bad", max_tokens=-1)])
    bench.sql('UPDATE job SET options = \'{"on_invalid": "skip"}\'')
    bench.plan(job_id)
    job = bench.finish(job_id)
    value = bench.worker.metrics.registry.get_sample_value
    model = {"model": "smollm2"}
    assert value("tidemill_lines_total", {**model, "result": "ok"}) == job.n_ok == 2
    assert value("tidemill_lines_total", {**model, "result": "error"}) == job.n_err == 1
    assert value("tidemill_tokens_total", {**model, "kind": "prompt"}) == job.prompt_tokens
    assert value("tidemill_tokens_total", {**model, "kind": "completion"}) == job.completion_tokens
    assert value("tidemill_chunks_total", {**model, "outcome": "committed"}) == 2
    assert value("tidemill_engine_starts_total", {**model, "result": "ok"}) == 1


def test_an_engine_that_dies_is_counted(bench: Any, line: Line) -> None:
    poison = 999
    job_id = bench.create([line("row", [poison])])
    bench.plan(job_id)
    bench.finish(job_id)
    value = bench.worker.metrics.registry.get_sample_value
    deaths = value("tidemill_engine_deaths_total", {"model": "smollm2"})
    assert deaths == bench.worker.settings.worker.max_crashes
    assert value("tidemill_chunks_total", {"model": "smollm2", "outcome": "crashed"}) == deaths


def test_a_database_that_is_away_is_said_and_nothing_is_made_up(away: Database) -> None:
    registry = backlog(away)
    assert registry.get_sample_value("tidemill_database_up") == 0
    assert registry.get_sample_value("tidemill_jobs", {"state": "running"}) is None
