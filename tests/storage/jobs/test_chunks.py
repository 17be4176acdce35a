"""Chunks under lease: nobody runs one that is another's, and nothing stale is ever written."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from moves import claim, commit, must_claim, tick
from storage.database.connection import Database
from storage.database.states import ChunkState, StopReason
from storage.database.tables import Job
from storage.errors import NotFound, StateConflict, StorageError
from storage.jobs import chunks, crashes, jobs
from storage.jobs.chunks import Counts

Create = Callable[..., Job]


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
from storage.jobs import chunks
from storage.database.connection import Database
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
        lambda: crashes.crash_chunk(database, stale.id, stale.attempt),
    ):
        with pytest.raises(StateConflict):
            write()
    assert commit(database, current).attempt == current.attempt
    with pytest.raises(StateConflict):
        commit(database, stale)
    with pytest.raises(StateConflict):
        crashes.crash_chunk(database, current.id, current.attempt)
    kept = chunks.load(database, current.id)
    assert kept is not None
    assert (kept.state, kept.part_key) == ("done", f"parts/{current.attempt}")


def test_no_such_chunk_is_another_error(database: Database) -> None:
    with pytest.raises(NotFound):
        chunks.release_chunk(database, "chunk_missing", 1)
    with pytest.raises(NotFound):
        crashes.crash_chunk(database, "chunk_missing", 1)
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


def test_many_leases_are_renewed_at_once(database: Database, running_job: Create) -> None:
    job, other = running_job(4, 4), running_job(4)
    held = [must_claim(database) for _ in range(3)]
    lost = held[1]
    chunks.release_chunk(database, lost.id, lost.attempt, delay=60)
    jobs.request_stop(database, "acme", other.id)
    leases = [
        chunks.ChunkLease(chunk.id, chunk.attempt, Counts(ok=index + 1))
        for index, chunk in enumerate(held)
    ]
    renewed = chunks.renew_chunks(database, leases, lease_seconds=90)
    assert [(renewed[c.id].still_mine, renewed[c.id].stop) for c in held] == [
        (True, None),
        (False, None),
        (True, StopReason.CANCELLED),
    ]
    kept = {c.id: c for c in chunks.iter_chunks(database, job.id, list(ChunkState))}
    assert (kept[held[0].id].progress, kept[lost.id].progress) == (1, 0)
    before, after = held[0].lease_exp, kept[held[0].id].lease_exp
    assert before is not None
    assert after is not None
    assert after > before + 40
    assert chunks.renew_chunks(database, [], lease_seconds=90) == {}


def test_stops_are_told_between_renewals(database: Database, running_job: Create) -> None:
    cancelled, expired, going = running_job(), running_job(window_seconds=0.0), running_job()
    jobs.request_stop(database, "acme", cancelled.id)
    tick(database)
    asked = [cancelled.id, expired.id, going.id]
    assert chunks.stop_reasons(database, asked) == {
        cancelled.id: StopReason.CANCELLED,
        expired.id: StopReason.EXPIRED,
    }
    assert chunks.stop_reasons(database, []) == {}


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


def test_chunks_are_read_in_pages(
    database: Database, running_job: Create, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = running_job(*[1] * 7)
    monkeypatch.setattr(chunks, "PAGE_ROWS", 3)
    found = list(chunks.iter_chunks(database, job.id, [ChunkState.PENDING]))
    assert [chunk.a for chunk in found] == list(range(7))
