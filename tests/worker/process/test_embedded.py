"""The whole spine with nothing replaced: wake-ups, database, store, planner, engine, model."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from openai.types.chat import ChatCompletion

from storage.database.states import TERMINAL_JOB_STATES, ChunkState, JobState
from storage.ids import new_id
from storage.jobs import jobs
from storage.jobs.chunks import iter_chunks
from storage.jobs.jobs import JobView, NewJob
from storage.objects import object_keys
from storage.registry import files
from storage.registry.files import NewFile
from storage.settings import Settings
from storage.stores import Stores
from storage.wakeups import LocalWakeups, Wakeup
from worker.process.embedded import EmbeddedWorker

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
SECONDS = 200.0


def _chat(custom_id: str, content: str, max_tokens: int = 16, **options: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": content}]
    body = {"model": "smollm2", "messages": messages, "temperature": 0, **options}
    body["max_tokens"] = max_tokens
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body}


class Site:
    """A home folder with a running embedded worker."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stores = Stores.open(settings.storage)
        self.database, self.store = self.stores.database, self.stores.objects
        self.database.migrate()
        self.wakeups = LocalWakeups()

    def create(self, lines: list[dict[str, Any]], endpoint: str = CHAT) -> str:
        data = b"\n".join(map(orjson.dumps, lines))
        file_id = new_id("file")
        key = object_keys.upload("default", file_id)
        info = self.store.put(key, data)
        file = files.insert(
            self.database,
            NewFile(file_id, "default", "batch", "in.jsonl", len(data), key, info.etag, ""),
        )
        job = jobs.create_job(self.database, NewJob("default", endpoint, "24h", 86_400.0, file)).job
        self.wakeups.send(Wakeup.plan(job.id))
        return job.id

    def wait(self, job_id: str, reached: Callable[[JobView], bool]) -> list[JobView]:
        """Every view until one is as wished."""
        seen: list[JobView] = []
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            seen.append(jobs.view(self.database, "default", job_id))
            if reached(seen[-1]):
                return seen
            time.sleep(0.1)
        raise AssertionError(f"still {seen[-1]}")

    def read(self, key: str | None) -> list[dict[str, Any]]:
        with self.store.reader(key or "") as stream:
            return [orjson.loads(line) for line in stream.read().splitlines()]


def _ended(view: JobView) -> bool:
    return view.job.state in TERMINAL_JOB_STATES


def test_leases_in_a_shared_database_are_left_to_their_owners(
    make_bench: Any, line: Any, tmp_path: Path
) -> None:
    bench = make_bench()
    job_id = bench.create([line("a")])
    bench.plan(job_id)
    bench.sql("UPDATE chunk SET state = 'leased', owner = 'another', attempt = 1, lease_exp = 9e9")
    url = f"sqlite:///{tmp_path / 'tidemill.db'}"
    settings = Settings.load(home=tmp_path / "other", database_url=url)
    stores = Stores.open(settings.storage)
    worker = EmbeddedWorker(settings, stores, LocalWakeups())
    try:
        worker.start()
        (chunk,) = bench.chunks(job_id)
        assert (chunk.state, chunk.owner, chunk.crashes) == (ChunkState.LEASED, "another", 0)
    finally:
        worker.stop()


class Watched(LocalWakeups):
    """Counts its subscribers."""

    subscribers = 0

    def subscribe(self, handler: Callable[[Wakeup], None]) -> Callable[[], None]:
        self.subscribers += 1
        end = super().subscribe(handler)

        def unsubscribe() -> None:
            end()
            self.subscribers -= 1

        return unsubscribe


def test_a_cancel_takes_effect_at_once_and_a_stop_is_quick(make_bench: Any, line: Any) -> None:
    bench = make_bench(reconcile_seconds=600)  # it is the wake-up that does it
    wakeups = Watched()
    settings = bench.worker.settings
    stores = Stores(bench.worker.database, bench.worker.store, settings.storage)
    worker = EmbeddedWorker(settings, stores, wakeups, make_engine=bench.lab.make)
    worker.start()
    try:
        job_id = bench.create([line("a")])
        jobs.pause(bench.worker.database, "default", job_id)
        bench.plan(job_id)
        jobs.request_stop(bench.worker.database, "default", job_id)
        assert wakeups.subscribers == 1
        wakeups.send(Wakeup.reconcile())
        asked_at = time.monotonic()
        while bench.job(job_id).state not in TERMINAL_JOB_STATES:
            assert time.monotonic() - asked_at < 5
            time.sleep(0.01)
        assert bench.job(job_id).state == JobState.CANCELLED
    finally:
        stopped_at = time.monotonic()
        ended = worker.stop()
    assert ended
    assert time.monotonic() - stopped_at < 1
    assert wakeups.subscribers == 0


@pytest.mark.slow
def test_a_real_job_its_progress_a_cancel_and_a_quick_stop(tmp_path: Path) -> None:
    # One test, since loading the model takes longer than all the rest of it.
    site = Site(Settings.load(home=tmp_path, chunk_lines=8, dtype="float32", renew_seconds=0.1))
    worker = EmbeddedWorker(site.settings, site.stores, site.wakeups)
    worker.start()
    try:
        _a_job_is_run(site)
        _prompts_are_scored(site)
        _a_cancelled_job_ends_soon(site)
        left = site.create([_chat(f"row{i}", f"Tell me of {i}.", 2_000) for i in range(20)])
        site.wait(left, lambda view: view.job.state == JobState.RUNNING)
        time.sleep(1)
    finally:
        stopped_at = time.monotonic()
        worker.stop()
    assert time.monotonic() - stopped_at < 8
    assert worker.failures == {}
    held = list(iter_chunks(site.database, left, [ChunkState.LEASED]))
    assert held == [], "every chunk was given back"
    pending = list(iter_chunks(site.database, left, [ChunkState.PENDING]))
    assert {chunk.crashes for chunk in pending} == {0}
    site.database.close()


def _a_job_is_run(site: Site) -> None:
    questions = ["What is the capital of France?", "Say hello.", "Name a colour."]
    lines = [_chat(f"row{i}", questions[i % 3]) for i in range(12)]
    # They end one after the other, so that there is progress to be told between.
    lines += [
        _chat(f"own{i}", f"What comes after {i}?", 16 * (i + 1), ignore_eos=True, logprobs=True)
        for i in range(12)
    ]
    views = site.wait(site.create(lines), _ended)
    job = views[-1].job
    assert (job.state, job.n_ok, job.n_err) == (JobState.COMPLETED, 24, 0)
    done = [view.progress.done for view in views]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, 24)
    assert len(set(done)) > 2, "nothing was told between the first line and the last"
    output = site.read(job.out_key)
    assert [row["custom_id"] for row in output] == [line["custom_id"] for line in lines]
    responses = [ChatCompletion.model_validate(row["response"]["body"]) for row in output]
    assert "Paris" in (responses[0].choices[0].message.content or "")
    assert responses[0].choices == responses[9].choices
    assert responses[-1].choices[0].logprobs is not None
    assert job.plan is not None
    assert job.plan["duplicate_lines"] == 9


def _prompts_are_scored(site: Site) -> None:
    prompts = ["The capital of France is Paris", "The capital of France is", "Zażółć 😀"]
    bodies = [
        {"prompt": prompts, "echo": True, "logprobs": 1, "max_tokens": 0},
        {"prompt": prompts[1], "echo": True, "logprobs": 1, "max_tokens": 2, "temperature": 0},
        {"prompt": prompts[:2], "n": 2, "best_of": 4, "max_tokens": 3, "ignore_eos": True},
    ]
    lines = [
        {"custom_id": str(i), "method": "POST", "url": TEXT, "body": body}
        for i, body in enumerate(bodies)
    ]
    job = site.wait(site.create(lines, TEXT), _ended)[-1].job
    assert (job.n_ok, job.n_err) == (3, 0)
    scored, begun, best = (row["response"]["body"] for row in site.read(job.out_key))
    assert [choice["text"] for choice in scored["choices"]] == prompts
    found = [choice["logprobs"] for choice in scored["choices"]]
    for prompt, logprobs in zip(prompts, found, strict=True):
        offsets = [*logprobs["text_offset"], len(prompt)]
        for token, start, end in zip(logprobs["tokens"], offsets, offsets[1:], strict=False):
            assert prompt[start:end] == token or "\ufffd" in token
        assert logprobs["token_logprobs"][0] is logprobs["top_logprobs"][0] is None
    assert scored["usage"]["prompt_tokens"] == sum(len(each["tokens"]) for each in found)
    assert scored["usage"]["completion_tokens"] == 0
    # The same tokens after the same text, whoever computes them.
    assert found[1]["token_logprobs"][1:] == pytest.approx(found[0]["token_logprobs"][1:-1])
    (choice,) = begun["choices"]
    assert choice["text"].startswith("The capital of France is Paris")
    assert choice["logprobs"]["tokens"][:6] == found[0]["tokens"]
    assert choice["logprobs"]["token_logprobs"][1:6] == pytest.approx(
        found[0]["token_logprobs"][1:], rel=1e-3
    )
    assert [choice["index"] for choice in best["choices"]] == [0, 1, 2, 3]
    assert best["usage"]["completion_tokens"] == 2 * 4 * 3


def _a_cancelled_job_ends_soon(site: Site) -> None:
    lines = [_chat(f"row{i}", f"Write a long story about {i}.", 1_500) for i in range(24)]
    job_id = site.create(lines)
    site.wait(job_id, lambda view: view.job.state == JobState.RUNNING)
    jobs.request_stop(site.database, "default", job_id)
    asked_at = time.monotonic()
    job = site.wait(job_id, _ended)[-1].job
    assert time.monotonic() - asked_at < 15
    assert job.state == JobState.CANCELLED
    assert job.n_ok + job.n_err + job.n_cancelled == 24
    assert len(site.read(job.err_key)) == job.n_err + job.n_cancelled
