"""Sessions on SQLite or PostgreSQL, the database's clock, and its errors as those of storage.

The same SQL runs on both. What differs is here: how a transaction begins, how the time is read,
and which failures mean "try again".
"""

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    create_engine,
    event,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlmodel import Session, SQLModel

from storage.database.sqlite_file import REMEDY, check_file, refused_statement
from storage.database.translation import translated
from storage.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    DatabaseUnusable,
)

T = TypeVar("T")


BUSY_SECONDS = 30.0
MIGRATION_LOCK = 0x71DE_0001
MIGRATIONS = Path(__file__).parent / "migrations"
_WRITE = "tidemill_write"


class _NewerSchema(Exception):
    """The schema's revision is not known to this version."""


class _Now(FunctionElement[float]):
    type = Float()
    inherit_cache = True


@compiles(_Now, "sqlite")
def _now_sqlite(element: _Now, compiler: SQLCompiler, **options: Any) -> str:
    # 2440587.5 is the Julian day of 1970-01-01; SQLite before 3.42 has no unixepoch('subsec').
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(_Now, "postgresql")
def _now_postgresql(element: _Now, compiler: SQLCompiler, **options: Any) -> str:
    # The statement's time, not the transaction's: it is stable, so an index on a time is usable.
    return "CAST(extract(epoch FROM statement_timestamp()) AS double precision)"


def now_sql() -> ColumnElement[float]:
    """The database's clock as an SQL expression: seconds since the epoch."""
    return _Now()


class Database:
    """One database and its pool of connections. Safe to use from any thread."""

    def __init__(self, url: str) -> None:
        """Open lazily: nothing is connected to until the first session.

        Raises:
            ConfigurationError: the URL is not one of SQLite or PostgreSQL (psycopg).
        """
        try:
            self.url = make_url(url)
        except SQLAlchemyError as error:
            raise ConfigurationError("The database URL cannot be read.") from error
        self.dialect = self.url.get_backend_name()
        if self.dialect not in ("sqlite", "postgresql"):
            raise ConfigurationError(f"Databases are sqlite or postgresql, not {self.dialect}.")
        sqlite_file = self.dialect == "sqlite"
        arguments: dict[str, Any] = {"check_same_thread": False}
        if not sqlite_file:
            # Imported here and below: the embedded mode then starts without loading psycopg.
            from storage.database.postgres import connect_arguments, limit_waiting

            arguments = connect_arguments(self.url)
        self._database = create_engine(
            self.url,
            connect_args=arguments,
            pool_pre_ping=self.dialect == "postgresql",
            pool_size=10,
            max_overflow=40,  # the API's threads are 40; a worker in the same process has some too
            pool_timeout=BUSY_SECONDS,
        )
        event.listen(self._database, "connect", self._on_connect)
        if sqlite_file:
            event.listen(self._database, "begin", _begin_sqlite)
        else:
            limit_waiting(self._database)
        self._writer = self._database.execution_options(**{_WRITE: True})
        # Writers of one process queue here: SQLite's own lock is polled, and not fair.
        self._turn = threading.Lock()

    def read(self) -> AbstractContextManager[Session]:
        """A session in one consistent transaction, which is rolled back at the end."""
        return self._session(write=False)

    def write(self) -> AbstractContextManager[Session]:
        """A session that commits on a clean exit; on SQLite it holds the write lock throughout."""
        return self._session(write=True)

    def settle(self, change: Callable[[Session], T], *, seconds: float = 20.0) -> T:
        """Commit ``change``; try again while the database is away, for at most ``seconds``.

        When the reply to a commit is lost, it may have taken effect, so ``change`` must recognize
        its own earlier success and return it.
        """
        deadline = time.monotonic() + seconds
        pause = 0.05
        while True:
            try:
                with self.write() as session:
                    return change(session)
            except DatabaseUnavailable:
                if time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(2 * pause, 2.0)

    def now(self, session: Session) -> float:
        """The database's clock: seconds since the epoch."""
        return session.scalars(select(now_sql())).one()

    def migrate(self) -> None:
        """Bring the schema to the newest revision; safe when several processes do so at once.

        Raises:
            DatabaseUnusable: it is damaged, is no database, or is that of a newer version; the
                message names it.
            DatabaseUnavailable: it is away or locked; the same call may succeed later.
        """
        name = self.url.database or ":memory:"
        if self.dialect == "sqlite" and not name.startswith((":memory:", "file:")):
            check_file(Path(name))
        try:
            self._upgrade()
        except DatabaseUnusable:
            raise DatabaseUnusable(f"The database {self.where} is damaged. {REMEDY}") from None
        except DatabaseUnavailable as error:
            if not refused_statement(error.__cause__):
                raise
            raise DatabaseUnusable(
                f"The database {self.where} is that of another program. {REMEDY}"
            ) from error
        except _NewerSchema as error:
            raise DatabaseUnusable(
                f"The database {self.where} is that of a newer version of Tidemill. Upgrade "
                "Tidemill, or name another database."
            ) from error

    @property
    def where(self) -> str:
        """What to call it: the path of a file, or the URL without its password."""
        if self.dialect == "sqlite" and self.url.database:
            return self.url.database
        return self.url.render_as_string(hide_password=True)

    def _upgrade(self) -> None:
        if self.dialect == "sqlite" and self._is_current():
            return
        # Imported here: a command that finds its home folder up to date starts without Alembic.
        from alembic import command
        from alembic.config import Config
        from alembic.util import CommandError

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        with self.write() as session, self._patient(session):
            if self.dialect == "postgresql":
                session.connection().execute(
                    text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK}
                )
            config.attributes["connection"] = session.connection()
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                raise _NewerSchema from error

    def _is_current(self) -> bool:
        """Whether the schema is at the newest revision; known without loading Alembic."""
        with self.read() as session:
            connection = session.connection()
            if not inspect(connection).has_table("alembic_version"):
                return False
            found = connection.execute(text("SELECT version_num FROM alembic_version"))
            return list(found.scalars()) == [newest_revision()]

    def close(self) -> None:
        """Close every idle connection; the object must not be used afterwards."""
        self._database.dispose()

    @contextmanager
    def _patient(self, session: Session) -> Iterator[None]:
        """Wait without limit: for another process's migration, or a large table's."""
        if self.dialect == "sqlite":
            yield
            return
        connection = session.connection()
        for limit in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
            connection.execute(text(f"SET LOCAL {limit} = 0"))
        driver = connection.connection.driver_connection
        driver.limit_seconds = None  # type: ignore[union-attr]
        try:
            yield
        finally:
            del driver.limit_seconds  # type: ignore[union-attr]

    @contextmanager
    def _session(self, *, write: bool) -> Iterator[Session]:
        bind = self._writer if write else self._database
        serial = write and self.dialect == "sqlite"
        with (
            translated(),
            self._my_turn() if serial else nullcontext(),
            Session(bind, expire_on_commit=False) as session,
        ):
            yield session
            if write:
                session.commit()

    @contextmanager
    def _my_turn(self) -> Iterator[None]:
        if not self._turn.acquire(timeout=BUSY_SECONDS):
            raise DatabaseUnavailable("Another thread has held the database for too long.")
        try:
            yield
        finally:
            self._turn.release()

    def _on_connect(self, connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
        if self.dialect == "sqlite":
            # The driver must not begin transactions on its own: `_begin_sqlite` does.
            connection.isolation_level = None
            statements: tuple[str, ...] = (
                f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}",
                "PRAGMA journal_mode = WAL",
                "PRAGMA synchronous = FULL",
                "PRAGMA foreign_keys = ON",
            )
        else:
            from storage.database.postgres import session_statements

            statements = session_statements()
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        cursor.close()
        connection.commit()


def newest_revision() -> str:
    """The last of the revisions, whose files are named by their numbers."""
    return max(path.name[:4] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def _begin_sqlite(connection: Connection) -> None:
    write = connection.get_execution_options().get(_WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def insert_if_absent(session: Session, table: type[SQLModel], values: Mapping[str, Any]) -> bool:
    """Insert one row unless a unique constraint holds it already; whether it was inserted.

    ``values`` may hold SQL expressions such as `now_sql`.
    """
    dialect = session.get_bind().dialect.name
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    result = session.connection().execute(
        insert(table).values(dict(values)).on_conflict_do_nothing()
    )
    return result.rowcount == 1
