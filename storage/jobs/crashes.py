"""Chunks whose attempt died: given back, or split until the line that causes it is alone."""

from sqlmodel import Session

from storage.database.connection import Database, now_sql
from storage.database.states import ChunkState
from storage.database.tables import Chunk
from storage.ids import new_id
from storage.jobs.chunks import NO_COUNTS
from storage.jobs.transitions import advance_chunk, lost

SPLIT_CRASHES = 2
MAX_BACKOFF_SECONDS = 60.0


def crash_chunk(database: Database, chunk_id: str, attempt: int, *, engine: bool = False) -> None:
    """Give a chunk back because its attempt crashed: see `note_crash`.

    ``engine`` says that the engine died while it had the chunk.

    Raises:
        StateConflict: the lease is not this attempt's any more.
    """
    with database.write() as session:
        chunk = session.get(Chunk, chunk_id, with_for_update=True)
        if chunk is None or not note_crash(session, chunk, attempt=attempt, engine=engine):
            raise lost(session, Chunk, chunk_id)


def note_crash(
    session: Session, chunk: Chunk, *, attempt: int, wait: bool = True, engine: bool = False
) -> bool:
    """Take a leased chunk from an attempt that died; whether it was still that attempt's.

    After the first crash the chunk can be claimed again at once: most likely the worker was
    stopped. At the second it is split in two, so that a line that kills its worker is isolated in
    few steps while its neighbours are run. A single line waits (if ``wait``), twice as long each
    time.
    """
    crashes = chunk.crashes + 1
    if crashes >= SPLIT_CRASHES and chunk.b - chunk.a > 1:
        if not advance_chunk(session, chunk.id, attempt, ChunkState.SPLIT, **NO_COUNTS):
            return False
        middle = (chunk.a + chunk.b) // 2
        session.add(_child(chunk, chunk.a, middle))
        session.add(_child(chunk, middle, chunk.b))
        session.flush()
        return True
    given_back = advance_chunk(
        session,
        chunk.id,
        attempt,
        ChunkState.PENDING,
        crashes=crashes,
        engine_crashes=chunk.engine_crashes + int(engine),
        not_before=now_sql() + (_backoff_seconds(crashes) if wait else 0.0),
        **NO_COUNTS,
    )
    return given_back is not None


def _backoff_seconds(crashes: int) -> float:
    return 0.0 if crashes < SPLIT_CRASHES else min(2.0 ** (crashes - 1), MAX_BACKOFF_SECONDS)


def _child(parent: Chunk, a: int, b: int) -> Chunk:
    lines = b - a
    return Chunk(
        id=new_id("chunk"),
        job_id=parent.job_id,
        a=a,
        b=b,
        model=parent.model,
        # Half of a chunk is split at its next crash; a single line starts at zero.
        crashes=SPLIT_CRASHES - 1 if lines > 1 else 0,
        plan_key=parent.plan_key,
        plan_a=parent.plan_a,
        first_line=parent.first_line,
        last_line=parent.last_line,
        n_tokens=parent.n_tokens * lines // (parent.b - parent.a),
    )
