"""The rows. Times are seconds since the epoch on the database's clock; `None` is "not yet".

Names follow the field's terms: a *job* is a batch, a *chunk* a range ``[a, b)`` of the plan's
order, a *part* a chunk's committed results.
"""

from typing import Any

from sqlalchemy import JSON, BigInteger, CheckConstraint, Column, Index, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from storage.database.states import ChunkState, JobState, OutputState, ShardState

_JSON = JSON(none_as_null=True)
_OPEN = text("state = 'open'")


def _big(default: int = 0) -> Any:
    return Field(default=default, sa_type=BigInteger)


class File(SQLModel, table=True):
    """An uploaded or produced file."""

    __tablename__ = "file"
    __table_args__ = (
        Index("ix_file_tenant", "tenant_id", "created_at", "id"),
        Index("ix_file_expiry", "expires_at"),
        Index("ix_file_object", "object_key"),
    )

    id: str = Field(primary_key=True)
    tenant_id: str
    purpose: str
    filename: str
    bytes: int = Field(sa_type=BigInteger)
    object_key: str
    etag: str
    sha256: str
    created_at: float
    expires_at: float | None = None
    deleted_at: float | None = None


class Model(SQLModel, table=True):
    """A model that workers may run. ``source`` is a built-in name, a folder or a GGUF file."""

    __tablename__ = "model"

    name: str = Field(primary_key=True)
    source: str
    created_at: float


class Job(SQLModel, table=True):
    """A batch.

    ``retry_of`` is the id of the batch of which this one runs only the failed lines.
    ``paused_at`` is set while its chunks may not be claimed. ``waiting_for`` is what last kept it
    from going on (`storage.jobs.waiting_models`). ``n_lines`` counts the planned lines;
    ``n_ok``, ``n_err`` and ``n_cancelled`` are written once, as sums over the chunks, when the job
    becomes terminal. ``collected_at`` is when its plan files and parts were deleted.
    ``estimate`` is what it was expected to cost (`storage.estimates.estimate`), and ``likeness`` a
    digest of what its rows have in common.
    """

    __tablename__ = "job"
    __table_args__ = (
        UniqueConstraint("tenant_id", "idem_key"),
        Index("ix_job_tenant", "tenant_id", "created_at", "id"),
        Index("ix_job_state_priority", "state", "priority"),
        Index("ix_job_likeness", "tenant_id", "likeness", "created_at"),
    )

    id: str = Field(primary_key=True)
    tenant_id: str
    state: str = Field(default=JobState.VALIDATING)
    idem_key: str | None = None
    idem_hash: str | None = None
    endpoint: str
    completion_window: str
    model: str | None = None
    input_file_id: str
    input_key: str
    input_etag: str
    input_sha256: str
    meta: dict[str, str] | None = Field(default=None, sa_column=Column("metadata", _JSON))
    options: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    output_expires_seconds: int | None = None
    priority: int = 0
    retry_of: str | None = None

    cancel: str | None = None
    paused_at: float | None = None
    waiting_for: dict[str, Any] | None = Field(default=None, sa_column=Column(_JSON))
    plan_epoch: int = 0
    fin_epoch: int = 0
    lease_owner: str | None = None
    lease_exp: float | None = None
    attempts: int = 0

    n_lines: int | None = Field(default=None, sa_type=BigInteger)
    plan: dict[str, Any] | None = Field(default=None, sa_column=Column(_JSON))
    estimate: dict[str, Any] | None = Field(default=None, sa_column=Column(_JSON))
    likeness: str | None = None
    errors: list[dict[str, Any]] | None = Field(default=None, sa_column=Column(_JSON))
    n_invalid: int = _big()
    report_file_id: str | None = None
    out_file_id: str | None = None
    err_file_id: str | None = None
    out_key: str | None = None
    err_key: str | None = None
    out_sha256: str | None = None
    err_sha256: str | None = None
    n_ok: int = _big()
    n_err: int = _big()
    n_cancelled: int = _big()
    prompt_tokens: int = _big()
    cached_tokens: int = _big()
    completion_tokens: int = _big()

    created_at: float
    expires_at: float
    in_progress_at: float | None = None
    finalizing_at: float | None = None
    completed_at: float | None = None
    failed_at: float | None = None
    expired_at: float | None = None
    cancelling_at: float | None = None
    cancelled_at: float | None = None
    collected_at: float | None = None

    @property
    def only_estimated(self) -> bool:
        """Whether nothing of it is to be run: it asks for its estimate."""
        return bool(self.options.get("estimate"))


class Chunk(SQLModel, table=True):
    """Lines ``[a, b)`` of a job's plan order, run and committed as one.

    ``plan_key`` names the Arrow file that holds the planned lines; it starts at plan position
    ``plan_a`` (a split child reads its parent's file). ``first_line`` and ``last_line`` bound the
    input's line numbers (from 1) in it, for the merge. ``crashes`` counts the attempts whose
    engine, worker or host died; ``engine_crashes`` counts those in which it is known that the
    engine died. ``seconds`` and ``steps`` are its share of an engine's time and steps, ``device``
    what that engine is rated as; ``generated_tokens`` counts each output once, however many lines
    got it.
    """

    __tablename__ = "chunk"
    __table_args__ = (
        UniqueConstraint("job_id", "a", "b"),
        CheckConstraint("state <> 'done' OR n_ok + n_err = b - a", name="done_counts"),
        CheckConstraint("a < b", name="not_empty"),
        Index("ix_chunk_claim", "state", "model", "not_before"),
        Index("ix_chunk_job", "job_id", "state", "a"),
        Index("ix_chunk_rate", "model", "done_at"),
    )

    id: str = Field(primary_key=True)
    job_id: str = Field(foreign_key="job.id")
    a: int = Field(sa_type=BigInteger)
    b: int = Field(sa_type=BigInteger)
    model: str
    state: str = Field(default=ChunkState.PENDING)
    attempt: int = 0
    owner: str | None = None
    lease_exp: float | None = None
    not_before: float = 0.0
    crashes: int = 0
    engine_crashes: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    progress: int = 0
    plan_key: str
    plan_a: int = Field(sa_type=BigInteger)
    first_line: int = Field(sa_type=BigInteger)
    last_line: int = Field(sa_type=BigInteger)
    n_tokens: int = _big()
    part_key: str | None = None
    part_sha256: str | None = None
    n_ok: int = 0
    n_err: int = 0
    prompt_tokens: int = _big()
    cached_tokens: int = _big()
    completion_tokens: int = _big()
    generated_tokens: int = Field(
        default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": "0"}
    )
    device: str | None = None
    seconds: float = Field(default=0.0, sa_column_kwargs={"server_default": "0"})
    steps: float = Field(default=0.0, sa_column_kwargs={"server_default": "0"})
    done_at: float | None = None


class Output(SQLModel, table=True):
    """Results of a job in the caller's own place, and the lease on writing them.

    ``columns`` are those of the shards, known once the job is planned. ``problem`` is what last
    kept a shard or the manifest from being written, and ``failing_since`` since when nothing was.
    Of the open ones no two have the same place.
    """

    __tablename__ = "output"
    __table_args__ = (
        Index("ix_output_open", "uri", unique=True, sqlite_where=_OPEN, postgresql_where=_OPEN),
    )

    job_id: str = Field(primary_key=True, foreign_key="job.id")
    uri: str
    format: str
    state: str = Field(default=OutputState.OPEN)
    columns: list[dict[str, str]] | None = Field(default=None, sa_column=Column(_JSON))
    problem: dict[str, Any] | None = Field(default=None, sa_column=Column(_JSON))
    failing_since: float | None = None
    epoch: int = 0
    lease_owner: str | None = None
    lease_exp: float | None = None
    attempts: int = 0


class Shard(SQLModel, table=True):
    """One file of an output: the rows of one of the planner's windows, in the input's order.

    ``first_line`` and ``last_line`` bound their numbers in the input; no other shard has lines
    between them. ``rows_key`` names the object with what the input says of them.
    """

    __tablename__ = "shard"
    __table_args__ = (
        CheckConstraint("state <> 'written' OR file IS NOT NULL", name="written_has_file"),
    )

    job_id: str = Field(primary_key=True, foreign_key="job.id")
    number: int = Field(primary_key=True)
    first_line: int = Field(sa_type=BigInteger)
    last_line: int = Field(sa_type=BigInteger)
    n_rows: int = Field(sa_type=BigInteger)
    rows_key: str
    state: str = Field(default=ShardState.WAITING)
    file: str | None = None
    size: int | None = Field(default=None, sa_type=BigInteger)
    sha256: str | None = None
    written_at: float | None = None


METADATA = SQLModel.metadata
