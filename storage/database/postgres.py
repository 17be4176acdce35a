"""PostgreSQL connections on which every wait has a limit.

A server that was killed closes its connections. One that is paused, or behind a network that drops
all packets, does not: the kernel, and every thread that asks, would wait for hours. So there are
limits in the server, for statements, locks and idle transactions; in the kernel, for data that is
not acknowledged; and in the client, for a reply that does not come.
"""

from collections.abc import Mapping
from time import monotonic
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from sqlalchemy import event
from sqlalchemy.engine import URL, Engine

RV = TypeVar("RV")

STATEMENT_SECONDS = 30.0
LOCK_SECONDS = 10.0
# A process that is paused in a transaction holds its locks until the server ends it.
IDLE_SECONDS = 10.0
RESPONSE_MARGIN_SECONDS = 2.0
_CONNECT: Mapping[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
    "application_name": "tidemill",
}


class LimitedConnection(psycopg.Connection[Any]):
    """A connection on which no statement, commit or rollback waits longer than its limit.

    Attributes:
        limit_seconds: how long; ``None`` is without limit.
    """

    limit_seconds: float | None = STATEMENT_SECONDS + RESPONSE_MARGIN_SECONDS

    def wait(self, gen: PQGen[RV], *args: Any, **options: Any) -> RV:
        """As in psycopg, for at most ``limit_seconds``; after that the connection is closed."""
        return super().wait(self._limited(gen), *args, **options)

    def _limited(self, gen: PQGen[RV]) -> PQGen[RV]:
        # While nothing arrives psycopg resumes the generator ten times a second.
        limit = self.limit_seconds
        deadline = None if limit is None else monotonic() + limit
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and deadline is not None and monotonic() > deadline:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"no answer within {limit:g} seconds")
                wanted = gen.send(ready)
        except StopIteration as done:
            value: RV = done.value
            return value


def connect_arguments(url: URL) -> dict[str, Any]:
    """The arguments of a connection, without those that the URL sets."""
    return {name: value for name, value in _CONNECT.items() if name not in url.query}


def limit_waiting(database: Engine) -> None:
    """Have every new connection of this pool be a `LimitedConnection`."""

    def connect(dialect: Any, record: Any, arguments: Any, options: Any) -> Any:
        return LimitedConnection.connect(*arguments, **options)

    event.listen(database, "do_connect", connect)


def session_statements() -> tuple[str, ...]:
    """The statements that each new connection runs first."""
    return (
        "SET synchronous_commit = on",
        f"SET statement_timeout = {STATEMENT_SECONDS * 1000:.0f}",
        f"SET lock_timeout = {LOCK_SECONDS * 1000:.0f}",
        f"SET idle_in_transaction_session_timeout = {IDLE_SECONDS * 1000:.0f}",
    )
