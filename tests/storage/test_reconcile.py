"""What the rows say has to happen next, whoever died meanwhile."""

import threading
from collections.abc import Callable

import pytest
from sqlalchemy import update
from sqlmodel import col

from storage import chunks, finalizing, garbage, jobs, planning
from storage.chunks import Counts
from storage.database import Database
from storage.finalizing import Results
from storage.reconcile import reclaim_embedded
from storage.reconcile import reconcile as reconcile_with
from storage.states import ChunkState, JobState
from storage.tables import Chunk, Job
from storage.wakeups import Wakeup

Create = Callable[..., Job]


def reconcile(database: Database) -> list[Wakeup]:
    return reconcile_with(database, max_crashes=3)


def claim(database: Database, lease_seconds: float = 45) -> Chunk:
    chunk = chunks.claim_chunk(
        database, "w", ["smollm2"], lease_seconds=lease_seconds, max_crashes=3
    )
    assert chunk is not None
    return chunk


def commit(database: Database, chunk: Chunk) -> None:
    chunks.commit_chunk(
        database,
        chunk.id,
        chunk.attempt,
        part_key="p",
        part_sha256="s",
        counts=Counts(chunk.b - chunk.a),
    )


def states(database: Database, job: Job) -> list[str]:
    found = chunks.iter_chunks(database, job.id, list(ChunkState))
    return [chunk.state for chunk in sorted(found, key=lambda chunk: (chunk.a, -chunk.b))]


def test_wakeups_follow_a_job(database: Database, new_job: Create, running_job: Create) -> None:
    assert reconcile(database) == []
    waiting = new_job()
    assert reconcile(database) == [Wakeup.plan(waiting.id)]
    planning.claim_plan(database, "p", lease_seconds=45)
    assert reconcile(database) == []
    job = running_job(4)
    assert reconcile(database) == [Wakeup.drain("smollm2")]
    chunk = claim(database)
    assert reconcile(database) == []
    commit(database, chunk)
    assert reconcile(database) == [Wakeup.finalize(job.id)]
    assert jobs.load(database, job.id).state == JobState.FINALIZING
    finalizing.claim_finalize(database, "f", lease_seconds=45)
    assert reconcile(database) == []


def test_one_wakeup_a_model(database: Database, running_job: Create) -> None:
    running_job(1, 1, 1)
    running_job(1, model="large")
    running_job(1)
    wakeups = reconcile(database)
    assert sorted(wakeup.args[0] for wakeup in wakeups) == ["large", "smollm2"]
    assert {wakeup.queue for wakeup in wakeups} == {
        "tidemill.model.large",
        "tidemill.model.smollm2",
    }


def test_an_expired_lease_is_a_crash(database: Database, running_job: Create) -> None:
    job = running_job(4)
    chunk = claim(database, lease_seconds=0)
    reconcile(database)
    kept = chunks.load(database, chunk.id)
    assert kept is not None
    assert (kept.state, kept.crashes, kept.attempt, kept.owner) == ("pending", 1, 1, None)
    assert not chunks.renew_chunk(
        database, chunk.id, chunk.attempt, Counts(), lease_seconds=45
    ).still_mine
    let_waits_pass(database)
    claim(database, lease_seconds=0)
    reconcile(database)
    assert states(database, job) == ["split", "pending", "pending"]


def let_waits_pass(database: Database) -> None:
    with database.write() as session:
        session.execute(update(Chunk).values(not_before=0.0))


def test_a_live_lease_is_left_alone(database: Database, running_job: Create) -> None:
    job = running_job(4)
    claim(database)
    reconcile(database)
    assert states(database, job) == ["leased"]


def test_a_job_is_finalized_only_when_nothing_is_live(
    database: Database, running_job: Create
) -> None:
    job = running_job(4, 4)
    commit(database, claim(database))
    reconcile(database)
    assert jobs.load(database, job.id).state == JobState.RUNNING  # one is pending
    chunk = claim(database)
    reconcile(database)
    assert jobs.load(database, job.id).state == JobState.RUNNING  # one is leased
    commit(database, chunk)
    reconcile(database)
    assert jobs.load(database, job.id).state == JobState.FINALIZING


def test_a_cancelled_job_waits_for_its_leased_chunks(
    database: Database, running_job: Create
) -> None:
    job = running_job(4, 4, 4)
    commit(database, claim(database))
    chunk = claim(database)
    jobs.request_stop(database, "acme", job.id)
    assert reconcile(database) == []
    assert states(database, job) == ["done", "leased", "cancelled"]
    assert jobs.load(database, job.id).state == JobState.RUNNING
    commit(database, chunk)
    reconcile(database)
    assert jobs.load(database, job.id).state == JobState.FINALIZING


def test_a_dead_workers_chunk_of_a_cancelled_job(database: Database, running_job: Create) -> None:
    job = running_job(4)
    claim(database, lease_seconds=0)
    jobs.request_stop(database, "acme", job.id)
    reconcile(database)
    assert states(database, job) == ["cancelled"]
    assert jobs.load(database, job.id).state == JobState.FINALIZING


def test_a_job_cancelled_before_its_plan(database: Database, new_job: Create) -> None:
    job = new_job()
    jobs.request_stop(database, "acme", job.id)
    assert reconcile(database) == []
    ended = jobs.load(database, job.id)
    assert (ended.state, ended.n_lines) == ("cancelled", None)
    assert ended.cancelled_at is not None


@pytest.mark.parametrize("planned", [False, True])
def test_jobs_expire(
    database: Database, new_job: Create, running_job: Create, planned: bool
) -> None:
    job = running_job(4, window_seconds=0.0) if planned else new_job(window_seconds=0.0)
    reconcile(database)
    expired = jobs.load(database, job.id)
    assert expired.cancel == "expired"
    assert expired.state == ("finalizing" if planned else "expired")
    assert (expired.expired_at is None) == planned


def test_a_poison_line_rings_for_no_worker(database: Database, running_job: Create) -> None:
    running_job(1)
    for _ in range(3):
        claim(database, lease_seconds=0)
        reconcile(database)
        let_waits_pass(database)
    assert reconcile(database) == []
    assert len(chunks.poison_chunks(database, max_crashes=3)) == 1


def test_a_second_pass_changes_nothing(database: Database, running_job: Create) -> None:
    job = running_job(4, 4)
    claim(database, lease_seconds=0)
    first = reconcile(database)
    before = [chunk.model_dump() for chunk in every_chunk(database, job)]
    assert reconcile(database) == first
    assert [chunk.model_dump() for chunk in every_chunk(database, job)] == before


def every_chunk(database: Database, job: Job) -> list[Chunk]:
    return list(chunks.iter_chunks(database, job.id, list(ChunkState)))


def test_many_reconcilers_and_workers_at_once(database: Database, running_job: Create) -> None:
    """Workers that die at every third chunk, and three reconcilers: each line is done once."""
    jobs_made = [running_job(*[4] * 10) for _ in range(2)]
    stop = threading.Event()
    failures: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - reported by the test's own thread
            failures.append(error)
            stop.set()

    def work() -> None:
        count = 0
        while not stop.is_set():
            chunk = chunks.claim_chunk(database, "w", ["smollm2"], lease_seconds=45, max_crashes=99)
            if chunk is None:
                let_waits_pass(database)
                continue
            count += 1
            if count % 3:
                commit(database, chunk)
            else:
                expire(database, chunk)

    def settle() -> None:
        while not stop.is_set():
            reconcile_with(database, max_crashes=99)
            if all(jobs.load(database, job.id).state == "finalizing" for job in jobs_made):
                stop.set()

    threads = [
        threading.Thread(target=guarded, args=(task,))
        for task in (work, work, settle, settle, settle)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        stop.set()
    assert failures == []
    for job in jobs_made:
        done = sorted((c.a, c.b) for c in every_chunk(database, job) if c.state == "done")
        assert [a for a, _ in done] == [0, *(b for _, b in done[:-1])]
        assert done[-1][1] == 40


def expire(database: Database, chunk: Chunk) -> None:
    with database.write() as session:
        session.execute(
            update(Chunk)
            .where(col(Chunk.id) == chunk.id, col(Chunk.attempt) == chunk.attempt)
            .values(lease_exp=0.0)
        )


def test_an_embedded_home_takes_every_lease_back(
    database: Database, new_job: Create, running_job: Create
) -> None:
    running = running_job(4, 4)
    waiting = new_job()
    planning.claim_plan(database, "p", lease_seconds=45)
    claim(database)
    reclaim_embedded(database)
    assert states(database, running) == ["pending", "pending"]
    assert claim(database).crashes == 1
    again = planning.claim_plan(database, "p", lease_seconds=45)
    assert again is not None
    assert (again.id, again.plan_epoch, again.attempts) == (waiting.id, 2, 2)


def test_only_ended_jobs_are_collected_once(
    database: Database, running_job: Create, new_job: Create
) -> None:
    job = running_job(4)
    new_job()
    assert garbage.collectable_jobs(database, older_than=0) == []
    commit(database, claim(database))
    reconcile(database)
    mine = finalizing.claim_finalize(database, "f", lease_seconds=45)
    assert mine is not None
    finalizing.commit_final(database, job.id, mine.fin_epoch, Results(4, 0, None, None))
    assert garbage.collectable_jobs(database, older_than=3600) == []
    assert garbage.collectable_jobs(database, older_than=0) == [job.id]
    garbage.mark_collected(database, job.id)
    assert garbage.collectable_jobs(database, older_than=0) == []
