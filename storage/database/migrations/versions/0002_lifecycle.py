"""Paused jobs, retries, crashes that were the engine's, and files by their object."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("job", sa.Column("paused_at", sa.Float()))
    op.add_column("job", sa.Column("retry_of", sa.String()))
    op.add_column(
        "chunk", sa.Column("engine_crashes", sa.Integer(), nullable=False, server_default="0")
    )
    op.create_index("ix_file_object", "file", ["object_key"])
