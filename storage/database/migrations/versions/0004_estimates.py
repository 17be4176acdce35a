"""What chunks took of an engine, and what was expected of a job beforehand."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("job", sa.Column("estimate", sa.JSON()))
    op.add_column("job", sa.Column("likeness", sa.String()))
    for name, kind in (
        ("generated_tokens", sa.BigInteger()),
        ("seconds", sa.Float()),
        ("steps", sa.Float()),
    ):
        op.add_column("chunk", sa.Column(name, kind, nullable=False, server_default="0"))
    op.add_column("chunk", sa.Column("device", sa.String()))
    op.create_index("ix_chunk_rate", "chunk", ["model", "done_at"])
    op.create_index("ix_job_likeness", "job", ["tenant_id", "likeness", "created_at"])
