"""Files, models, jobs and chunks."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    _create_file()
    op.create_table(
        "model",
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
    )
    _create_job()
    _create_chunk()


def _create_file() -> None:
    op.create_table(
        "file",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("filename", sa.String(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("object_key", sa.String(), nullable=False),
        sa.Column("etag", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float()),
        sa.Column("deleted_at", sa.Float()),
    )
    op.create_index("ix_file_tenant", "file", ["tenant_id", "created_at", "id"])
    op.create_index("ix_file_expiry", "file", ["expires_at"])


def _create_job() -> None:
    op.create_table(
        "job",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("idem_key", sa.String()),
        sa.Column("idem_hash", sa.String()),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("completion_window", sa.String(), nullable=False),
        sa.Column("model", sa.String()),
        sa.Column("input_file_id", sa.String(), nullable=False),
        sa.Column("input_key", sa.String(), nullable=False),
        sa.Column("input_etag", sa.String(), nullable=False),
        sa.Column("input_sha256", sa.String(), nullable=False),
        sa.Column("metadata", sa.JSON()),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("output_expires_seconds", sa.Integer()),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("cancel", sa.String()),
        sa.Column("plan_epoch", sa.Integer(), nullable=False),
        sa.Column("fin_epoch", sa.Integer(), nullable=False),
        sa.Column("lease_owner", sa.String()),
        sa.Column("lease_exp", sa.Float()),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("n_lines", sa.BigInteger()),
        sa.Column("plan", sa.JSON()),
        sa.Column("errors", sa.JSON()),
        sa.Column("n_invalid", sa.BigInteger(), nullable=False),
        sa.Column("report_file_id", sa.String()),
        sa.Column("out_file_id", sa.String()),
        sa.Column("err_file_id", sa.String()),
        sa.Column("out_key", sa.String()),
        sa.Column("err_key", sa.String()),
        sa.Column("out_sha256", sa.String()),
        sa.Column("err_sha256", sa.String()),
        sa.Column("n_ok", sa.BigInteger(), nullable=False),
        sa.Column("n_err", sa.BigInteger(), nullable=False),
        sa.Column("n_cancelled", sa.BigInteger(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.Column("in_progress_at", sa.Float()),
        sa.Column("finalizing_at", sa.Float()),
        sa.Column("completed_at", sa.Float()),
        sa.Column("failed_at", sa.Float()),
        sa.Column("expired_at", sa.Float()),
        sa.Column("cancelling_at", sa.Float()),
        sa.Column("cancelled_at", sa.Float()),
        sa.Column("collected_at", sa.Float()),
        sa.UniqueConstraint("tenant_id", "idem_key"),
    )
    op.create_index("ix_job_tenant", "job", ["tenant_id", "created_at", "id"])
    op.create_index("ix_job_state_priority", "job", ["state", "priority"])


def _create_chunk() -> None:
    op.create_table(
        "chunk",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("job_id", sa.String(), sa.ForeignKey("job.id"), nullable=False),
        sa.Column("a", sa.BigInteger(), nullable=False),
        sa.Column("b", sa.BigInteger(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String()),
        sa.Column("lease_exp", sa.Float()),
        sa.Column("not_before", sa.Float(), nullable=False),
        sa.Column("crashes", sa.Integer(), nullable=False),
        sa.Column("progress", sa.Integer(), nullable=False),
        sa.Column("plan_key", sa.String(), nullable=False),
        sa.Column("plan_a", sa.BigInteger(), nullable=False),
        sa.Column("first_line", sa.BigInteger(), nullable=False),
        sa.Column("last_line", sa.BigInteger(), nullable=False),
        sa.Column("n_tokens", sa.BigInteger(), nullable=False),
        sa.Column("part_key", sa.String()),
        sa.Column("part_sha256", sa.String()),
        sa.Column("n_ok", sa.Integer(), nullable=False),
        sa.Column("n_err", sa.Integer(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
        sa.Column("done_at", sa.Float()),
        sa.UniqueConstraint("job_id", "a", "b"),
        sa.CheckConstraint("state <> 'done' OR n_ok + n_err = b - a", name="done_counts"),
        sa.CheckConstraint("a < b", name="not_empty"),
    )
    op.create_index("ix_chunk_claim", "chunk", ["state", "model", "not_before"])
    op.create_index("ix_chunk_job", "chunk", ["job_id", "state", "a"])
