"""A database of an earlier version goes on with what it holds."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text

import storage.database.migrations
from moves import MAX_CRASHES, must_claim
from storage.database.connection import Database, newest_revision
from storage.jobs import jobs
from storage.jobs.reconcile import reconcile
from storage.wakeups import Wakeup

FIRST_ROWS = (
    "INSERT INTO file (id, tenant_id, purpose, filename, bytes, object_key, etag, sha256,"
    " created_at) VALUES ('file-1', 'acme', 'batch', 'in', 1, 'files/acme/file-1', 'e', 's', 1)",
    "INSERT INTO job (id, tenant_id, state, endpoint, completion_window, input_file_id, input_key,"
    " input_etag, input_sha256, options, priority, plan_epoch, fin_epoch, attempts, n_lines,"
    " n_invalid, n_ok, n_err, n_cancelled, prompt_tokens, cached_tokens, completion_tokens,"
    " created_at, expires_at) VALUES ('batch_1', 'acme', 'running', '/v1/x', '24h', 'file-1', 'k',"
    " 'e', 's', '{}', 0, 1, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 9e9)",
    "INSERT INTO chunk (id, job_id, a, b, model, state, attempt, not_before, crashes, progress,"
    " plan_key, plan_a, first_line, last_line, n_tokens, n_ok, n_err, prompt_tokens, cached_tokens,"
    " completion_tokens) VALUES ('chunk_1', 'batch_1', 0, 4, 'smollm2', 'pending', 1, 0, 1, 0,"
    " 'p', 0, 1, 4, 10, 0, 0, 0, 0, 0)",
)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.servers)])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database without a schema."""
    if request.param == "sqlite":
        database = Database(f"sqlite:///{tmp_path / 'old.db'}")
    else:
        server = Database(request.getfixturevalue("postgres_url"))
        name = f"old_{uuid4().hex}"
        with server.read() as session:
            connection = session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
            connection.execute(text(f"CREATE DATABASE {name}"))
        server.close()
        url = server.url.set(database=name).render_as_string(hide_password=False)
        database = Database(url)
    yield database
    database.close()


def migrate_to(database: Database, revision: str) -> None:
    config = Config()
    config.set_main_option(
        "script_location", str(Path(storage.database.migrations.__file__).parent)
    )
    with database.write() as session:
        config.attributes["connection"] = session.connection()
        command.upgrade(config, revision)


def test_a_schema_that_is_current_is_known_without_alembic(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new' / 'a.db'}"
    code = (
        "import sys; from storage.database.connection import Database\n"
        f"database = Database({url!r}); database.migrate(); database.close()\n"
        "print(*sorted({'alembic', 'psycopg'} & set(sys.modules)))"
    )
    said = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert [done.stdout for done in said] == ["alembic\n", "\n"]


def test_the_newest_revision_is_the_one_that_alembic_ends_at() -> None:
    config = Config()
    config.set_main_option(
        "script_location", str(Path(storage.database.migrations.__file__).parent)
    )
    assert ScriptDirectory.from_config(config).get_heads() == [newest_revision()]


def test_a_job_that_runs_goes_on_after_an_upgrade(empty: Database) -> None:
    migrate_to(empty, "0001")
    with empty.write() as session:
        for statement in FIRST_ROWS:
            session.connection().execute(text(statement))
    empty.migrate()
    empty.migrate()
    job = jobs.get(empty, "acme", "batch_1")
    assert (job.paused_at, job.retry_of, job.estimate) == (None, None, None)
    assert reconcile(empty, max_crashes=MAX_CRASHES) == [Wakeup.drain("smollm2")]
    chunk = must_claim(empty)
    assert (chunk.id, chunk.attempt, chunk.crashes, chunk.engine_crashes) == ("chunk_1", 2, 1, 0)
    assert (chunk.generated_tokens, chunk.seconds, chunk.device) == (0, 0.0, None)
