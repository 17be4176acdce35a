"""Chunks whose attempt died, down to the one line that does it."""

from collections.abc import Callable

import pytest

from moves import claim, commit, let_waits_pass, must_claim
from storage.database.connection import Database
from storage.database.states import ChunkState
from storage.database.tables import Chunk, Job
from storage.errors import StateConflict
from storage.jobs import chunks, crashes, jobs

Create = Callable[..., Job]


def test_only_a_second_crash_of_a_line_waits(database: Database, running_job: Create) -> None:
    """The first is most likely the end of its worker, and the line is needed at once."""
    running_job(1)
    waits = []
    for _ in range(2):
        chunk = must_claim(database)
        crashes.crash_chunk(database, chunk.id, chunk.attempt)
        kept = chunks.load(database, chunk.id)
        assert kept is not None
        assert (kept.state, kept.owner) == ("pending", None)
        with database.read() as session:
            waits.append(kept.not_before - database.now(session))
    assert waits[0] <= 0 < waits[1] <= 2
    assert claim(database) is None


def test_crashes_tell_which_were_the_engines(database: Database, running_job: Create) -> None:
    running_job(1)
    for engine in (True, False, True):
        chunk = must_claim(database)
        crashes.crash_chunk(database, chunk.id, chunk.attempt, engine=engine)
        let_waits_pass(database)
    (poison,) = chunks.poison_chunks(database, max_crashes=3)
    assert (poison.crashes, poison.engine_crashes) == (3, 2)


def crash(database: Database, chunk: Chunk) -> None:
    """Crash a chunk and let its wait be over."""
    crashes.crash_chunk(database, chunk.id, chunk.attempt)
    let_waits_pass(database)


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
    crashed = 0
    while (chunk := claim(database)) is not None:
        if chunk.a <= 5 < chunk.b:
            crash(database, chunk)
            crashed += 1
        else:
            commit(database, chunk)
    assert crashed <= 2 + 3 + 3
    poison = chunks.poison_chunks(database, max_crashes=3)
    assert [(c.job_id, c.a, c.b, c.crashes) for c in poison] == [(job.id, 5, 6, 3)]
    mine = chunks.claim_poison(database, "reconciler", lease_seconds=45, max_crashes=3)
    assert mine is not None
    assert chunks.claim_poison(database, "other", lease_seconds=45, max_crashes=3) is None
    commit(database, mine)
    done = list(chunks.iter_chunks(database, job.id, [ChunkState.DONE]))
    assert sum(chunk.b - chunk.a for chunk in done) == 16
