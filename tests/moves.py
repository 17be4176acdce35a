"""Changes of the rows that many tests make, and what holds of the rows after each of them."""

from collections.abc import Callable, Sequence

from sqlalchemy import update
from sqlmodel import col

from storage.database.connection import Database
from storage.database.states import ChunkState
from storage.database.tables import Chunk, Job
from storage.errors import StateConflict
from storage.jobs import chunks
from storage.jobs.chunks import Counts
from storage.jobs.reconcile import reconcile
from storage.wakeups import Wakeup

MAX_CRASHES = 3


def claim(database: Database, *models: str, lease_seconds: float = 45) -> Chunk | None:
    """The next chunk, by default of the model that `running_job` names."""
    return chunks.claim_chunk(
        database,
        "worker",
        models or ["smollm2"],
        lease_seconds=lease_seconds,
        max_crashes=MAX_CRASHES,
    )


def must_claim(database: Database, *models: str, lease_seconds: float = 45) -> Chunk:
    """The next chunk, of which there is one."""
    chunk = claim(database, *models, lease_seconds=lease_seconds)
    assert chunk is not None
    return chunk


def commit(database: Database, chunk: Chunk, attempt: int | None = None) -> Chunk:
    """Every line of the chunk answered."""
    attempt = attempt or chunk.attempt
    return chunks.commit_chunk(
        database,
        chunk.id,
        attempt,
        part_key=f"parts/{attempt}",
        part_sha256="s",
        counts=Counts(ok=chunk.b - chunk.a),
    )


def tick(database: Database) -> list[Wakeup]:
    """One pass of a reconciler."""
    return reconcile(database, max_crashes=MAX_CRASHES)


def let_waits_pass(database: Database) -> None:
    """No chunk rests any more."""
    with database.write() as session:
        session.execute(update(Chunk).values(not_before=0.0))


def expire_leases(database: Database) -> None:
    """Every lease on a chunk or a job has run out."""
    with database.write() as session:
        leased = col(Chunk.state) == ChunkState.LEASED
        session.execute(update(Chunk).where(leased).values(lease_exp=0.0))
        owned = col(Job.lease_owner).is_not(None)
        session.execute(update(Job).where(owned).values(lease_exp=0.0))


def every_chunk(database: Database, job: Job) -> list[Chunk]:
    """In the plan's order, a parent before its children."""
    found = chunks.iter_chunks(database, job.id, list(ChunkState))
    return sorted(found, key=lambda chunk: (chunk.a, -chunk.b))


def states(database: Database, job: Job) -> list[str]:
    """Of every chunk, in that order."""
    return [chunk.state for chunk in every_chunk(database, job)]


def attempt(call: Callable[[], object]) -> bool:
    """Whether a change was made rather than a race lost."""
    try:
        call()
    except StateConflict:
        return False
    return True


def ranges_partition_the_lines(job: Job, own: Sequence[Chunk]) -> None:
    """Invariant I1: the ranges that are not split cover every line once."""
    at = 0
    for a, b in sorted((chunk.a, chunk.b) for chunk in own if chunk.state != ChunkState.SPLIT):
        assert a == at
        at = b
    assert at == (job.n_lines or 0)


def counts_are_sums(job: Job, own: Sequence[Chunk]) -> None:
    """Invariant I5, of an ended job's row."""
    done = [chunk for chunk in own if chunk.state == ChunkState.DONE]
    assert job.n_ok + job.n_err + job.n_cancelled == (job.n_lines or 0)
    assert job.n_ok == sum(chunk.n_ok for chunk in done)
    assert job.prompt_tokens == sum(chunk.prompt_tokens for chunk in done)
