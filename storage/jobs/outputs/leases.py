"""The lease on writing an output, and the transactions that settle its shards.

One writer at a time has an output: its shards are written in order, and the manifest after each.
Every write names the epoch of its claim, so a writer whose lease ran out can change nothing.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, func, or_, select, update
from sqlalchemy.orm import aliased
from sqlmodel import Session, col

from storage.database.connection import Database, now_sql
from storage.database.states import (
    LIVE_CHUNK_STATES,
    TERMINAL_JOB_STATES,
    JobState,
    OutputState,
    ShardState,
    StopReason,
)
from storage.database.tables import Chunk, Job, Output, Shard
from storage.errors import StateConflict
from storage.jobs.transitions import RenewResult, first_row

NOT_WRITTEN = "output_not_written"


@dataclass(frozen=True, slots=True)
class ClaimedOutput:
    """What there is to be done of an output: its next shard, or, where there is none, its end."""

    output: Output
    job: Job
    shard: Shard | None

    @property
    def epoch(self) -> int:
        """The claim's epoch, which every write names."""
        return self.output.epoch


def claim_output(database: Database, owner: str, *, lease_seconds: float) -> ClaimedOutput | None:
    """Lease an output of which something is due; the one that had to wait longest comes first.

    A shard is due once no chunk with lines of it is unsettled and all shards before it are written.
    The end of an output is due once its job is terminal; shards that wait even then come before it,
    unless the job has failed. ``attempts`` counts the claims since one that ended well or was
    postponed: where it is large, earlier writers died of it.
    """
    chosen = (
        select(col(Output.job_id))
        .join(Job, col(Job.id) == col(Output.job_id))
        .where(*_free(), _due())
        .order_by(
            col(Job.priority).desc(),
            func.coalesce(col(Output.lease_exp), 0.0),
            col(Job.created_at),
            col(Job.id),
        )
        .limit(1)
    )
    with database.read() as session:
        job_id = session.scalar(chosen)
    if job_id is None:
        return None
    with database.write() as session:
        output = first_row(
            session,
            update(Output)
            .where(
                col(Output.job_id) == job_id,
                *_free(),
                exists().where(col(Job.id) == col(Output.job_id), _due()),
            )
            .values(
                lease_owner=owner,
                lease_exp=now_sql() + lease_seconds,
                epoch=col(Output.epoch) + 1,
                attempts=col(Output.attempts) + 1,
            )
            .returning(Output),
        )
        if output is None:  # somebody else was faster
            return None
        job = session.get_one(Job, job_id)
        failed = job.state == JobState.FAILED
        shard = None if failed else session.scalars(_next_shards(job_id)).first()
        return ClaimedOutput(output, job, shard)


def renew_output(
    database: Database, job_id: str, epoch: int, *, lease_seconds: float
) -> RenewResult:
    """Keep the lease for ``lease_seconds`` from now."""
    with database.write() as session:
        renewed = _held(session, job_id, epoch, lease_exp=now_sql() + lease_seconds)
    return RenewResult(still_mine=renewed is not None)


def release_output(database: Database, job_id: str, epoch: int, *, delay: float = 0.0) -> None:
    """Give the lease back without counting an attempt; claimable after ``delay`` seconds."""
    with database.write() as session:
        _held(session, job_id, epoch, **_given_back(delay))


def settle_shard(
    database: Database, job_id: str, epoch: int, number: int, *, file: str, size: int, sha256: str
) -> None:
    """Note that a shard is written. The lease is kept.

    Raises:
        StateConflict: the epoch is over.
    """

    def change(session: Session) -> None:
        if _held(session, job_id, epoch, attempts=1, failing_since=None, problem=None) is None:
            raise StateConflict(f"The output of {job_id} is another writer's by now.")
        written = first_row(
            session,
            update(Shard)
            .where(
                col(Shard.job_id) == job_id,
                col(Shard.number) == number,
                col(Shard.state) == ShardState.WAITING,
            )
            .values(
                state=ShardState.WRITTEN,
                file=file,
                size=size,
                sha256=sha256,
                written_at=now_sql(),
            )
            .returning(Shard),
        )
        if written is None:  # this commit, whose reply was lost
            known = session.get_one(Shard, (job_id, number))
            if (known.state, known.sha256) != (ShardState.WRITTEN, sha256):
                raise StateConflict(f"Shard {number} of {job_id} is not waiting any more.")

    database.settle(change)


def close_output(database: Database, job_id: str, epoch: int) -> None:
    """Note that the manifest says how the job ended; a shard that still waits is never written."""
    with database.write() as session:
        if _held(session, job_id, epoch, state=OutputState.CLOSED, **_given_back()) is not None:
            drop_shards(session, job_id)


def give_up_output(database: Database, job_id: str, epoch: int, problem: dict[str, Any]) -> bool:
    """Write no more of an output; its job ends without, and has the problem among its errors.

    Returns false, and changes nothing, where the epoch is over.
    """
    with database.write() as session:
        values = {"state": OutputState.FAILED, "problem": problem, **_given_back()}
        held = _held(session, job_id, epoch, **values) is not None
        if held:
            drop_shards(session, job_id)
    return held


def postpone_output(
    database: Database, job_id: str, epoch: int, problem: dict[str, Any], *, delay: float
) -> None:
    """Give the lease back for ``delay`` seconds, and note why."""
    since = func.coalesce(col(Output.failing_since), now_sql())
    with database.write() as session:
        values = {"failing_since": since, "problem": problem, **_given_back(delay)}
        _held(session, job_id, epoch, **values)


def seconds_failing(database: Database, claimed: ClaimedOutput) -> float:
    """For how long a job has waited for nothing but a place that refuses it; 0 while it runs."""
    since, job = claimed.output.failing_since, claimed.job
    if since is None or job.state not in (JobState.FINALIZING, *TERMINAL_JOB_STATES):
        return 0.0
    with database.read() as session:
        return database.now(session) - max(since, job.finalizing_at or since)


def all_settled() -> ColumnElement[bool]:
    """Jobs that wait for no shard: they may be finalized. One without a plan has no shards."""
    waiting = exists().where(
        col(Shard.job_id) == col(Job.id), col(Shard.state) == ShardState.WAITING
    )
    return or_(~waiting, func.coalesce(col(Job.cancel), "") == StopReason.BROKEN)


def drop_shards(session: Session, job_id: str) -> None:
    """Shards that were not written by now never will be."""
    session.execute(
        update(Shard)
        .where(col(Shard.job_id) == job_id, col(Shard.state) == ShardState.WAITING)
        .values(state=ShardState.MISSING),
        execution_options={"synchronize_session": False},
    )


def _free() -> tuple[ColumnElement[bool], ...]:
    expired = or_(col(Output.lease_exp).is_(None), col(Output.lease_exp) <= now_sql())
    return col(Output.state) == OutputState.OPEN, expired


def _due() -> ColumnElement[bool]:
    """Whether there is anything to do, of an output and its job."""
    before = aliased(Shard)
    earlier = exists().where(
        col(before.job_id) == col(Shard.job_id),
        col(before.number) < col(Shard.number),
        col(before.state) == ShardState.WAITING,
    )
    unsettled = exists().where(
        col(Chunk.job_id) == col(Shard.job_id),
        col(Chunk.state).in_(LIVE_CHUNK_STATES),
        col(Chunk.first_line) <= col(Shard.last_line),
        col(Chunk.last_line) >= col(Shard.first_line),
    )
    shard = exists().where(
        col(Shard.job_id) == col(Job.id),
        col(Shard.state) == ShardState.WAITING,
        ~earlier,
        ~unsettled,
    )
    broken = func.coalesce(col(Job.cancel), "") == StopReason.BROKEN
    ended = col(Job.state).in_(TERMINAL_JOB_STATES)
    return or_(ended, and_(~broken, shard))


def _next_shards(job_id: str) -> Any:
    return (
        select(Shard)
        .where(col(Shard.job_id) == job_id, col(Shard.state) == ShardState.WAITING)
        .order_by(col(Shard.number))
        .limit(1)
    )


def _given_back(delay: float = 0.0) -> dict[str, Any]:
    return {"lease_owner": None, "lease_exp": now_sql() + delay, "attempts": 0}


def _held(session: Session, job_id: str, epoch: int, **values: Any) -> Output | None:
    """Change an output whose lease is still that of the epoch; ``None`` where it is not."""
    return first_row(
        session,
        update(Output)
        .where(
            col(Output.job_id) == job_id,
            col(Output.epoch) == epoch,
            col(Output.state) == OutputState.OPEN,
            col(Output.lease_owner).is_not(None),
        )
        .values(**values)
        .returning(Output),
    )
