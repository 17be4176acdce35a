"""What a random walk through the protocol is made of: a database, its rows, and single moves."""

import shutil
import tempfile
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from hypothesis.stateful import RuleBasedStateMachine, multiple
from sqlalchemy import select, text

from moves import MAX_CRASHES
from storage.database.connection import Database
from storage.database.states import ChunkState, JobState
from storage.database.tables import Chunk, Job
from storage.ids import new_id
from storage.jobs import chunks, finalizing, jobs
from storage.jobs.chunks import Counts
from storage.jobs.finalizing import Results
from storage.jobs.planning import Plan, PlannedChunk
from storage.objects import object_keys
from storage.registry.files import NewFile

LEASE = 1000.0
LIMITS: dict[str, Any] = {"lease_seconds": LEASE, "max_crashes": MAX_CRASHES}


class Walk(RuleBasedStateMachine):
    """A walk on a database of its own, without any rule yet."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp(prefix="tidemill-protocol-")
        self.database = Database(f"sqlite:///{Path(self.folder) / 'tidemill.db'}")
        self.database.migrate()
        self.seen: dict[str, dict[str, Any]] = {}  # rows as they were after the step before

    def teardown(self) -> None:
        self.database.close()
        shutil.rmtree(self.folder)

    def claim_now(self) -> Chunk | None:
        return chunks.claim_chunk(self.database, "w", ["m"], **LIMITS)

    def claim_poison_now(self) -> Chunk | None:
        return chunks.claim_poison(self.database, "r", **LIMITS)

    def claimable(self) -> list[str]:
        """As `chunks.claim_chunk`, in plain words."""
        with self.database.read() as session:
            now = self.database.now(session)
        running = [
            job.id
            for job in self.rows(Job)
            if job.state == JobState.RUNNING and not job.cancel and job.paused_at is None
        ]
        return [
            chunk.id
            for chunk in self.rows(Chunk)
            if chunk.state == ChunkState.PENDING
            and chunk.job_id in running
            and chunk.not_before < now - 5
            and (chunk.b - chunk.a > 1 or chunk.crashes < MAX_CRASHES)
        ]

    def held(self, chunk: Chunk) -> bool:
        now = chunks.load(self.database, chunk.id)
        return now is not None and now.state == ChunkState.LEASED and now.attempt == chunk.attempt

    def rows(self, table: Any) -> list[Any]:
        with self.database.read() as session:
            return list(session.scalars(select(table).order_by(text("rowid"))))

    def execute(self, statement: str) -> None:
        with self.database.write() as session:
            session.connection().execute(text(statement))


def given(row: Any) -> Any:
    """A row for a bundle, or nothing for it."""
    return multiple() if row is None else row


def part_of(chunk: Chunk) -> str:
    return object_keys.part(chunk.job_id, chunk.a, chunk.b, chunk.attempt)


def commit(database: Database, chunk: Chunk, errors: int) -> None:
    lines = chunk.b - chunk.a
    errors = min(errors, lines)
    counts = Counts(lines - errors, errors, 10 * lines, 4, 2)
    part: dict[str, Any] = {"part_key": part_of(chunk), "part_sha256": "s", "counts": counts}
    chunks.commit_chunk(database, chunk.id, chunk.attempt, **part)


def finalize(database: Database, job: Job, extra: int = 0) -> None:
    sums = jobs.progress(database, job.id)
    results = Results(sums.n_ok + extra, sums.n_err + sums.n_cancelled, new_file(), None)
    finalizing.commit_final(database, job.id, job.fin_epoch, results)


def plan_of(sizes: list[int]) -> Plan:
    ends = list(accumulate(sizes))
    ranges = pairwise([0, *ends])
    planned = [PlannedChunk(a, b, "m", "k", a + 1, b, b - a) for a, b in ranges]
    return Plan(ends[-1], planned, "m", {})


def new_file() -> NewFile:
    file_id = new_id("file")
    return NewFile(file_id, "acme", "batch_output", "f", 1, f"results/{file_id}", "e", "s")
