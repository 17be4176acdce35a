"""Results in the caller's own place, and the shards that they are written as."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_OPEN = sa.text("state = 'open'")


def upgrade() -> None:
    op.create_table(
        "output",
        sa.Column("job_id", sa.String(), sa.ForeignKey("job.id"), primary_key=True),
        sa.Column("uri", sa.String(), nullable=False),
        sa.Column("format", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("columns", sa.JSON()),
        sa.Column("problem", sa.JSON()),
        sa.Column("failing_since", sa.Float()),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("lease_owner", sa.String()),
        sa.Column("lease_exp", sa.Float()),
        sa.Column("attempts", sa.Integer(), nullable=False),
    )
    op.create_index(
        "ix_output_open",
        "output",
        ["uri"],
        unique=True,
        sqlite_where=_OPEN,
        postgresql_where=_OPEN,
    )
    op.create_table(
        "shard",
        sa.Column("job_id", sa.String(), sa.ForeignKey("job.id"), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("first_line", sa.BigInteger(), nullable=False),
        sa.Column("last_line", sa.BigInteger(), nullable=False),
        sa.Column("n_rows", sa.BigInteger(), nullable=False),
        sa.Column("rows_key", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("file", sa.String()),
        sa.Column("size", sa.BigInteger()),
        sa.Column("sha256", sa.String()),
        sa.Column("written_at", sa.Float()),
        sa.CheckConstraint("state <> 'written' OR file IS NOT NULL", name="written_has_file"),
    )
