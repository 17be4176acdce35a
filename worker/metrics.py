"""Metrics: what one worker counts, and the backlog in the database.

Counters belong to one process and start at zero with it. The backlog (jobs, chunks, lines) is read
from the database at each scrape, so every process reports all of it.
"""

from collections.abc import Iterator

import structlog
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from storage.database.connection import Database
from storage.errors import StorageError
from storage.jobs.backlog import read_backlog
from storage.jobs.chunks import Counts

log = structlog.get_logger(__name__)


class WorkerMetrics:
    """One worker's counters, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._chunks = self._counter(
            "tidemill_chunks", "Chunks that this worker let go of, by how.", "model", "outcome"
        )
        self._lines = self._counter(
            "tidemill_lines", "Lines that this worker committed.", "model", "result"
        )
        self._tokens = self._counter(
            "tidemill_tokens",
            "Tokens of the lines that this worker committed; cached ones are prompt tokens too.",
            "model",
            "kind",
        )
        self._engine_starts = self._counter(
            "tidemill_engine_starts", "Times that an engine was started.", "model", "result"
        )
        self._engine_deaths = self._counter(
            "tidemill_engine_deaths", "Engines that ended or hung while they had work.", "model"
        )

    def committed(self, model: str, counts: Counts) -> None:
        """A chunk became done."""
        self._chunks.labels(model, "committed").inc()
        self._lines.labels(model, "ok").inc(counts.ok)
        self._lines.labels(model, "error").inc(counts.err)
        self._tokens.labels(model, "prompt").inc(counts.prompt_tokens)
        self._tokens.labels(model, "cached").inc(counts.cached_tokens)
        self._tokens.labels(model, "completion").inc(counts.completion_tokens)

    def given_back(self, model: str, *, crashed: bool) -> None:
        """A chunk was given back, unchanged or as one that may have ended the engine."""
        self._chunks.labels(model, "crashed" if crashed else "given_back").inc()

    def abandoned(self, model: str) -> None:
        """A chunk's lease was lost."""
        self._chunks.labels(model, "abandoned").inc()

    def engine_started(self, model: str, *, ok: bool) -> None:
        """An engine was started, or did not start."""
        self._engine_starts.labels(model, "ok" if ok else "failed").inc()

    def engine_died(self, model: str) -> None:
        """An engine ended by itself, or hung and was ended."""
        self._engine_deaths.labels(model).inc()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)


class BacklogCollector(Collector):
    """The backlog, read from the database at each scrape; left out while the database is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def describe(self) -> Iterator[Metric]:
        """Nothing: to register it must not need a database."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Read the backlog and yield it as gauges."""
        up = GaugeMetricFamily("tidemill_database_up", "Whether the database answered the scrape.")
        try:
            backlog = read_backlog(self._database)
        except StorageError as error:
            log.warning("backlog_not_read", code=error.code)
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        jobs = GaugeMetricFamily("tidemill_jobs", "Jobs that have not ended.", labels=["state"])
        for state, count in backlog.jobs.items():
            jobs.add_metric([state], count)
        yield jobs
        for name, text, value in (
            ("jobs_paused", "Of these, the paused ones.", backlog.paused),
            ("job_oldest_seconds", "Age of the oldest job not ended.", backlog.oldest_seconds),
            ("leases_expired", "Leases that ran out, not taken back yet.", backlog.expired_leases),
        ):
            yield GaugeMetricFamily(f"tidemill_{name}", text, value=value)
        labels = ["model", "state"]
        families = {
            "chunks": GaugeMetricFamily("tidemill_backlog_chunks", "Chunks to do.", labels=labels),
            "lines": GaugeMetricFamily("tidemill_backlog_lines", "Lines to do.", labels=labels),
            "tokens": GaugeMetricFamily(
                "tidemill_backlog_prompt_tokens", "Prompt tokens to do.", labels=labels
            ),
        }
        for work in backlog.work:
            for field, family in families.items():
                family.add_metric([work.model, work.state], getattr(work, field))
        yield from families.values()
