"""Chunks claimed several at a time: as many as are wanted, in order, and each by one worker."""

from collections.abc import Callable
from functools import partial

import racing
from moves import MAX_CRASHES, let_waits_pass, must_claim, tick
from storage.database.connection import Database
from storage.database.tables import Chunk, Job
from storage.jobs import crashes, jobs
from storage.jobs.claims import MOST_CHUNKS, claim_chunks

Create = Callable[..., Job]


def claim(database: Database, lines: int) -> list[Chunk]:
    return claim_chunks(
        database, "w", ["smollm2"], lines=lines, lease_seconds=45, max_crashes=MAX_CRASHES
    )


def ranges(found: list[Chunk]) -> list[tuple[int, int]]:
    return [(chunk.a, chunk.b) for chunk in found]


def test_as_many_as_hold_the_lines(database: Database, running_job: Create) -> None:
    running_job(2, 2, 2, 2)
    found = claim(database, 5)
    assert ranges(found) == [(0, 2), (2, 4), (4, 6)]
    assert {(chunk.state, chunk.attempt, chunk.owner) for chunk in found} == {("leased", 1, "w")}
    assert ranges(claim(database, 100)) == [(6, 8)]
    assert claim(database, 100) == []


def test_one_at_least_and_a_bounded_number(database: Database, running_job: Create) -> None:
    running_job(*[1] * (MOST_CHUNKS + 3))
    assert len(claim(database, 0)) == 1
    assert len(claim(database, 10_000)) == MOST_CHUNKS


def test_jobs_in_the_order_of_their_urgency(database: Database, running_job: Create) -> None:
    plain, urgent = running_job(1, 1), running_job(1, 1, priority=3)
    found = claim(database, 3)
    assert [chunk.job_id for chunk in found] == [urgent.id, urgent.id, plain.id]


def test_a_chunk_that_crashed_comes_alone(database: Database, running_job: Create) -> None:
    running_job(1, 1, 1)
    first, second = must_claim(database), must_claim(database)
    for chunk in (first, second):
        crashes.crash_chunk(database, chunk.id, chunk.attempt)
    let_waits_pass(database)
    found = [ranges(claim(database, 10)) for _ in range(3)]
    assert found == [[(0, 1)], [(1, 2)], [(2, 3)]]


def test_nothing_of_jobs_that_are_stopped_or_paused(
    database: Database, running_job: Create
) -> None:
    stopped, paused, runs = running_job(1, 1), running_job(1, 1), running_job(1, 1)
    jobs.request_stop(database, "acme", stopped.id)
    jobs.pause(database, "acme", paused.id)
    assert {chunk.job_id for chunk in claim(database, 10)} == {runs.id}


def test_two_workers_never_get_the_same(
    database: Database, database_url: str, running_job: Create
) -> None:
    running_job(*[1] * 6)
    one, two = racing.race(database_url, partial(claim, lines=4), partial(claim, lines=4))
    assert len(one) == 4
    assert not {chunk.id for chunk in one} & {chunk.id for chunk in two}
    tick(database)
    rest = claim(database, 10)
    assert len(one) + len(two) + len(rest) == 6
