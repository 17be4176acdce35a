"""Chunks under lease: nobody runs one that is another's, and nothing stale is ever written."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import update

from storage import chunks, jobs
from storage.chunks import Counts
from storage.database import Database
from storage.errors import NotFound, StateConflict, StorageError
from storage.states import ChunkState, StopReason
from storage.tables import Chunk, Job

Create = Callable[..., Job]


def claim(database: Database, *models: str, lease_seconds: float = 45) -> Chunk | None:
    return chunks.claim_chunk(
        database, "worker", models or ["smollm2"], lease_seconds=lease_seconds, max_crashes=3
    )


def must_claim(database: Database, *models: str) -> Chunk:
    chunk = claim(database, *models)
    assert chunk is not None
    return chunk


def commit(database: Database, chunk: Chunk, attempt: int | None = None) -> Chunk:
    attempt = attempt or chunk.attempt
    return chunks.commit_chunk(
        database,
        chunk.id,
        attempt,
        part_key=f"parts/{attempt}",
        part_sha256="s",
        counts=Counts(ok=chunk.b - chunk.a),
    )


def test_claims_go_by_priority_then_age_then_plan(database: Database, running_job: Create) -> None:
    old = running_job(1, 1)
    urgent = running_job(1, priority=9)
    new = running_job(1)
    order = [(c.job_id, c.a) for c in (must_claim(database) for _ in range(4))]
    assert order == [(urgent.id, 0), (old.id, 0), (old.id, 1), (new.id, 0)]
    assert claim(database) is None


def test_a_claim_is_a_lease(database: Database, running_job: Create) -> None:
    running_job(2)
    chunk = must_claim(database)
    assert (chunk.state, chunk.owner, chunk.attempt) == ("leased", "worker", 1)
    with database.read() as session:
        assert chunk.lease_exp == pytest.approx(database.now(session) + 45, abs=5)


def test_a_chunk_that_is_given_back_may_rest(database: Database, running_job: Create) -> None:
    running_job(2)
    chunk = must_claim(database)
    chunks.release_chunk(database, chunk.id, chunk.attempt, delay=60)
    assert claim(database) is None
    found = chunks.load(database, chunk.id)
    assert found is not None
    assert (found.state, found.crashes) == (ChunkState.PENDING, 0)


def test_claims_are_for_the_models_asked_for(database: Database, running_job: Create) -> None:
    running_job(1, model="small")
    running_job(1, model="large")
    assert claim(database, "other") is None
    assert must_claim(database, "large").model == "large"
    assert must_claim(database, "large", "small").model == "small"


def test_chunks_of_stopped_jobs_are_not_claimed(database: Database, running_job: Create) -> None:
    job = running_job(1)
    jobs.request_stop(database, "acme", job.id)
    assert claim(database) is None


def test_threads_never_claim_a_chunk_twice(database: Database, running_job: Create) -> None:
    running_job(*[1] * 60)
    claimed: list[str] = []

    def drain() -> None:
        while (chunk := claim(database)) is not None:
            claimed.append(chunk.id)

    threads = [threading.Thread(target=drain) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == len(set(claimed)) == 60


DRAIN = """
import json, sys
from storage import chunks
from storage.database import Database
database = Database(sys.argv[1])
claimed = []
sys.stdin.readline()
while chunk := chunks.claim_chunk(database, "w", ["smollm2"], lease_seconds=45, max_crashes=3):
    claimed.append(chunk.id)
print(json.dumps(claimed))
"""


def test_processes_never_claim_a_chunk_twice(
    database: Database, database_url: str, running_job: Create
) -> None:
    running_job(*[1] * 60)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", DRAIN, database_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(3)
    ]
    claimed = []
    for worker in workers:  # all have their interpreter by now; they start together
        assert worker.stdin is not None
        worker.stdin.write(b"\n")
        worker.stdin.flush()
    for worker in workers:
        output, _ = worker.communicate(timeout=60)
        claimed += json.loads(output)
    assert len(claimed) == len(set(claimed)) == 60


def test_a_stale_attempt_changes_nothing(database: Database, running_job: Create) -> None:
    running_job(1)
    stale = must_claim(database)
    chunks.release_chunk(database, stale.id, stale.attempt)
    current = must_claim(database)
    assert (current.id, current.attempt) == (stale.id, stale.attempt + 1)
    renewed = chunks.renew_chunk(database, stale.id, stale.attempt, Counts(), lease_seconds=45)
    assert not renewed.still_mine
    for write in (
        lambda: commit(database, stale),
        lambda: chunks.release_chunk(database, stale.id, stale.attempt),
        lambda: chunks.crash_chunk(database, stale.id, stale.attempt),
    ):
        with pytest.raises(StateConflict):
            write()
    assert commit(database, current).attempt == current.attempt
    with pytest.raises(StateConflict):
        commit(database, stale)
    with pytest.raises(StateConflict):
        chunks.crash_chunk(database, current.id, current.attempt)
    kept = chunks.load(database, current.id)
    assert kept is not None
    assert (kept.state, kept.part_key) == ("done", f"parts/{current.attempt}")


def test_no_such_chunk_is_another_error(database: Database) -> None:
    with pytest.raises(NotFound):
        chunks.release_chunk(database, "chunk_missing", 1)
    with pytest.raises(NotFound):
        chunks.crash_chunk(database, "chunk_missing", 1)
    assert chunks.load(database, "chunk_missing") is None


def test_renewals_carry_progress_and_bring_the_stop(
    database: Database, running_job: Create
) -> None:
    job = running_job(4)
    chunk = must_claim(database)
    counts = Counts(2, 1, 30, 20, 9)
    renewed = chunks.renew_chunk(database, chunk.id, chunk.attempt, counts, lease_seconds=90)
    assert (renewed.still_mine, renewed.stop) == (True, None)
    kept = chunks.load(database, chunk.id)
    assert kept is not None
    assert chunk.lease_exp is not None
    assert kept.lease_exp is not None
    assert kept.lease_exp > chunk.lease_exp + 40
    assert (kept.progress, kept.n_ok, kept.n_err, kept.completion_tokens) == (3, 2, 1, 9)
    jobs.request_stop(database, "acme", job.id)
    renewed = chunks.renew_chunk(database, chunk.id, chunk.attempt, counts, lease_seconds=90)
    assert renewed.stop == StopReason.CANCELLED


def test_a_commit_counts_every_line(database: Database, running_job: Create) -> None:
    running_job(4)
    chunk = must_claim(database)
    with pytest.raises(StorageError):
        chunks.commit_chunk(
            database, chunk.id, chunk.attempt, part_key="p", part_sha256="s", counts=Counts(ok=3)
        )
    assert commit(database, chunk).n_ok == 4


def test_a_commit_whose_answer_is_lost_is_read_again(lossy: Any, running_job: Create) -> None:
    running_job(4)
    chunk = must_claim(lossy)
    lossy.losses = 1
    assert commit(lossy, chunk).state == "done"
    assert commit(lossy, chunk).state == "done"


def test_a_chunk_given_back_is_claimable_at_once(database: Database, running_job: Create) -> None:
    running_job(4)
    chunk = must_claim(database)
    chunks.renew_chunk(database, chunk.id, chunk.attempt, Counts(2), lease_seconds=45)
    chunks.release_chunk(database, chunk.id, chunk.attempt)
    again = must_claim(database)
    assert (again.id, again.attempt, again.crashes, again.progress) == (chunk.id, 2, 0, 0)


def test_a_crash_waits_before_the_next_try(database: Database, running_job: Create) -> None:
    running_job(4)
    chunk = must_claim(database)
    chunks.crash_chunk(database, chunk.id, chunk.attempt)
    kept = chunks.load(database, chunk.id)
    assert kept is not None
    assert (kept.state, kept.crashes, kept.owner) == ("pending", 1, None)
    with database.read() as session:
        assert kept.not_before > database.now(session)
    assert claim(database) is None


def crash(database: Database, chunk: Chunk) -> None:
    """Crash a chunk and let its wait be over."""
    chunks.crash_chunk(database, chunk.id, chunk.attempt)
    with database.write() as session:
        session.execute(update(Chunk).values(not_before=0.0))


def test_the_second_crash_splits(database: Database, running_job: Create) -> None:
    job = running_job(7)
    crash(database, must_claim(database))
    parent = must_claim(database)
    crash(database, parent)
    children = sorted(
        chunks.iter_chunks(database, job.id, [ChunkState.PENDING]), key=lambda chunk: chunk.a
    )
    assert [(c.a, c.b) for c in children] == [(0, 3), (3, 7)]
    for child in children:
        assert (child.plan_key, child.plan_a) == (parent.plan_key, parent.plan_a)
        assert (child.first_line, child.last_line) == (parent.first_line, parent.last_line)
    assert jobs.progress(database, job.id).planned_tokens == 70
    kept = chunks.load(database, parent.id)
    assert kept is not None
    assert kept.state == ChunkState.SPLIT
    with pytest.raises(StateConflict):
        commit(database, parent)


def test_a_poison_line_is_cornered_while_its_neighbours_get_done(
    database: Database, running_job: Create
) -> None:
    """Line 5 of 16 kills every worker that runs it."""
    job = running_job(16)
    crashes = 0
    while (chunk := claim(database)) is not None:
        if chunk.a <= 5 < chunk.b:
            crash(database, chunk)
            crashes += 1
        else:
            commit(database, chunk)
    assert crashes <= 2 + 3 + 3
    poison = chunks.poison_chunks(database, max_crashes=3)
    assert [(c.job_id, c.a, c.b, c.crashes) for c in poison] == [(job.id, 5, 6, 3)]
    mine = chunks.claim_poison(database, "reconciler", lease_seconds=45, max_crashes=3)
    assert mine is not None
    assert chunks.claim_poison(database, "other", lease_seconds=45, max_crashes=3) is None
    commit(database, mine)
    done = list(chunks.iter_chunks(database, job.id, [ChunkState.DONE]))
    assert sum(chunk.b - chunk.a for chunk in done) == 16


def test_chunks_are_read_in_pages(
    database: Database, running_job: Create, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = running_job(*[1] * 7)
    monkeypatch.setattr(chunks, "PAGE_ROWS", 3)
    found = list(chunks.iter_chunks(database, job.id, [ChunkState.PENDING]))
    assert [chunk.a for chunk in found] == list(range(7))
