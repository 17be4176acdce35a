"""The worker on a real database and object store; only tokenizer and engine are stand-ins.

The stand-ins need no model: words are tokens, and the engine completes a prompt with its token ids.
The real ones are in test_embedded.py.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import select, text, update
from sqlmodel import col

from engine.config import EngineConfig
from engine.errors import EngineDied, EngineError, TokenizerError
from engine.info import EngineInfo
from engine.requests import Completion, EngineStats, Output, Request
from storage.broker import open_wakeups
from storage.database.connection import Database
from storage.database.states import TERMINAL_JOB_STATES
from storage.database.tables import Chunk, Job
from storage.ids import new_id
from storage.jobs import jobs
from storage.jobs.jobs import NewJob
from storage.jobs.reconcile import reconcile
from storage.objects import object_keys
from storage.objects.local import LocalStore
from storage.registry import files
from storage.registry import models as model_rows
from storage.registry.files import NewFile
from storage.settings import Settings
from worker.context import WorkerContext
from worker.finish.finalizer import finalize_job
from worker.metrics import WorkerMetrics
from worker.models.engines import Engines
from worker.models.tokenizers import TextModel, TextModels
from worker.plan.job import plan_job
from worker.run.drain import drain
from worker.run.poison import bury_poison

TEXT = "/v1/completions"
POISON = 999  # a token that ends the engine


class WordTokenizer:
    """One token a word; ids by the word's text, so that equal words are equal tokens."""

    fill_tokens = None

    def encode_batch(
        self, texts: Sequence[str], add_special_tokens: bool = True
    ) -> list[list[int]]:
        start = [1] if add_special_tokens else []
        return [start + [2 + sum(word.encode()) % 900 for word in text.split()] for text in texts]

    def text_of(self, ids: Sequence[int]) -> str:
        return " ".join(f"w{token_id}" for token_id in ids)

    def render_chat(self, messages: Sequence[Mapping[str, Any]], **kwargs: Any) -> str:
        if messages[0]["role"] == "tool":
            raise TokenizerError("A conversation cannot begin with a tool.")
        return " ".join(f"<{message['role']}> {message['content']}" for message in messages)


def word_model(name: str, source: str = "words") -> TextModel:
    return TextModel(name, WordTokenizer(), context_length=64, vocab_size=1_000)


@pytest.fixture(scope="session")
def models() -> TextModels:
    return TextModels({"smollm2": "words", "other": "words"}, word_model)


class EchoEngine:
    """Completes each prompt with its own token ids, ``max_num_seqs`` at a time, oldest first."""

    max_num_seqs = 4

    def __init__(self, lab: "EngineLab") -> None:
        self._lab = lab
        self._waiting: list[Request] = []
        self.alive = False
        self.pid = None

    def start(self, timeout: float = 300.0) -> EngineInfo:
        self._lab.starts += 1
        if self._lab.start_error is not None:
            raise self._lab.start_error
        self.alive = True
        return EngineInfo("echo", 64, 1_000, "cpu", "none", 1, 16, self.max_num_seqs, 64, 0.0)

    def submit(self, requests: Sequence[Request]) -> None:
        self._waiting += requests
        self._lab.submitted += requests
        self._lab.most_waiting = max(self._lab.most_waiting, len(self._waiting))

    def cancel(self, request_ids: Iterable[str]) -> None:
        gone = set(request_ids)
        self._lab.cancelled |= gone
        self._waiting = [request for request in self._waiting if request.id not in gone]

    def flush(self) -> None:
        self._lab.flushes += 1

    def poll(self, timeout: float) -> list[Completion]:
        self._lab.before_poll(self)
        self._lab.polls += 1
        batch = [] if self._lab.paused else self._waiting[: self.max_num_seqs]
        if any(POISON in request.prompt for request in batch):
            self.die()
        self._waiting = [request for request in self._waiting if request not in batch]
        if not batch:
            time.sleep(min(timeout, 0.005))
        return [_echo(request) for request in batch]

    def die(self) -> None:
        self.alive = False
        self._lab.deaths += 1
        raise EngineDied("The engine process was killed.", exit_code=-9, log_tail="last words")

    def stats(self) -> EngineStats:
        return EngineStats(steps=self._lab.polls)

    def close(self, timeout: float = 10.0) -> None:
        self.alive = False


def _echo(request: Request) -> Completion:
    outputs = tuple(
        Output(index, request.prompt[:2], " ".join(map(str, request.prompt)), "stop")
        for index in range(request.params.n)
    )
    return Completion(request.id, request.prompt, outputs, cached_tokens=1)


class EngineLab:
    """What the test's engines did, and how they shall behave."""

    def __init__(self) -> None:
        self.submitted: list[Request] = []
        self.cancelled: set[str] = set()
        self.starts = self.deaths = self.flushes = self.most_waiting = self.polls = 0
        self.start_error: EngineError | None = None
        self.paused = False
        self.before_poll: Callable[[EchoEngine], None] = lambda engine: None

    def make(self, config: EngineConfig) -> EchoEngine:
        return EchoEngine(self)


class Bench:
    """One worker whose tasks the test runs itself, in the order that the reconciler asks for."""

    def __init__(self, worker: WorkerContext, lab: EngineLab) -> None:
        self.worker = worker
        self.lab = lab

    def create(
        self, lines: Sequence[bytes | Mapping[str, Any]], endpoint: str = TEXT, **options: Any
    ) -> str:
        data = b"\n".join(line if isinstance(line, bytes) else orjson.dumps(line) for line in lines)
        file_id = new_id("file")
        key = object_keys.upload("default", file_id)
        info = self.worker.store.put(key, data)
        file = files.insert(
            self.worker.database,
            NewFile(file_id, "default", "batch", "in.jsonl", len(data), key, info.etag, ""),
        )
        new = NewJob("default", endpoint, "24h", 86_400.0, file, options=options)
        return jobs.create_job(self.worker.database, new).job.id

    def plan(self, job_id: str) -> Job:
        plan_job(self.worker, job_id)
        return self.job(job_id)

    def run_due(self) -> None:
        """Run once whatever is due."""
        database, settings = self.worker.database, self.worker.settings
        with database.write() as session:  # no test waits for a back-off
            session.execute(update(Chunk).values(not_before=0.0))
        bury_poison(self.worker)
        for wakeup in reconcile(database, max_crashes=settings.worker.max_crashes):
            match wakeup.task:
                case "tidemill.plan":
                    plan_job(self.worker, wakeup.args[0])
                case "tidemill.drain":
                    drain(self.worker, *wakeup.args)
                case "tidemill.finalize":
                    finalize_job(self.worker, wakeup.args[0])

    def finish(self, job_id: str) -> Job:
        for _ in range(100):
            job = self.job(job_id)
            if job.state in TERMINAL_JOB_STATES:
                return job
            self.run_due()
        raise AssertionError(f"the job is still {job.state}")

    def job(self, job_id: str) -> Job:
        return jobs.load(self.worker.database, job_id)

    def chunks(self, job_id: str) -> list[Chunk]:
        with self.worker.database.read() as session:
            query = select(Chunk).where(col(Chunk.job_id) == job_id).order_by(col(Chunk.a))
            return list(session.scalars(query))

    def sql(self, statement: str) -> None:
        with self.worker.database.write() as session:
            session.execute(text(statement))

    def read(self, key: str | None) -> list[dict[str, Any]]:
        if key is None:
            return []
        with self.worker.store.reader(key) as stream:
            return [orjson.loads(line) for line in stream.read().splitlines()]


def completion(custom_id: str, prompt: Any = "w x", **options: Any) -> dict[str, Any]:
    body = {"model": "smollm2", "prompt": prompt, "temperature": 0, **options}
    return {"custom_id": custom_id, "method": "POST", "url": TEXT, "body": body}


@pytest.fixture
def line() -> Callable[..., dict[str, Any]]:
    return completion


@pytest.fixture
def make_lines() -> Callable[[int], list[dict[str, Any]]]:
    """Makes so many lines; their prompts are in an order that is not the plan's."""
    return lambda count: [
        completion(f"row{i}", [(i * 37) % 101 + 2, i % 3 + 2]) for i in range(count)
    ]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("template") / "tidemill.db"
    database = Database(f"sqlite:///{path}")
    database.migrate()
    database.close()
    return path.read_bytes()


@pytest.fixture
def make_bench(tmp_path: Path, template: bytes) -> Iterator[Callable[..., Bench]]:
    opened: list[Database] = []

    def make(**changes: Any) -> Bench:
        path = tmp_path / "tidemill.db"
        if not path.exists():
            path.write_bytes(template)
        settings = Settings.load(home=tmp_path, **changes)
        database = Database(settings.storage.resolved_database_url)
        opened.append(database)
        model_rows.ensure_default(database, "smollm2", "words")
        lab = EngineLab()
        metrics = WorkerMetrics()
        worker = WorkerContext(
            settings=settings,
            database=database,
            store=LocalStore(tmp_path / "objects"),
            wakeups=open_wakeups(settings.storage),
            engines=Engines(settings.engine, lab.make, metrics=metrics),
            metrics=metrics,
            load_text_model=word_model,
        )
        return Bench(worker, lab)

    yield make
    for database in opened:
        database.close()


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench()
