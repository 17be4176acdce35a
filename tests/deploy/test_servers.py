"""The real servers: what is written survives a SIGKILL and is there again on the same port."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from stack.postgres import Postgres
from stack.seaweed import Seaweed
from stack.server import Server
from stack.valkey import Valkey

pytestmark = pytest.mark.servers

DATA = b"kept" * 1000


def write_row(server: Postgres) -> None:
    with psycopg.connect(server.url) as connection:
        connection.execute("CREATE TABLE kept (data bytea)")
        connection.execute("INSERT INTO kept VALUES (%s)", [DATA])


def read_row(server: Postgres) -> bytes:
    with psycopg.connect(server.url) as connection:
        row = connection.execute("SELECT data FROM kept").fetchone()
    assert row is not None
    return bytes(row[0])


def write_key(server: Valkey) -> None:
    with server.client() as client:
        client.set("kept", DATA)


def read_key(server: Valkey) -> object:
    with server.client() as client:
        return client.get("kept")


def write_object(server: Seaweed) -> None:
    server.client.put_object(Bucket=server.bucket, Key="kept", Body=DATA)


def read_object(server: Seaweed) -> object:
    return server.client.get_object(Bucket=server.bucket, Key="kept")["Body"].read()


KINDS = [
    pytest.param(Postgres, write_row, read_row, id="postgres"),
    pytest.param(Valkey, write_key, read_key, id="valkey"),
    pytest.param(Seaweed, write_object, read_object, id="seaweedfs"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "write", "read"), KINDS)
def test_data_and_address_survive_a_kill(
    tmp_path: Path,
    kind: Callable[..., Server],
    write: Callable[..., None],
    read: Callable[..., object],
) -> None:
    server = kind(tmp_path).start()
    try:
        write(server)
        address = server.url
        server.kill()
        assert not server.healthy()
        server.start()
        assert server.url == address
        assert read(server) == DATA
        server.stop()
        # A later object on the same folder, as a new process would make.
        later = kind(tmp_path, port=server.port).start()
        try:
            assert read(later) == DATA
        finally:
            later.kill()
    finally:
        server.kill()


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[Postgres]:
    server = Postgres(tmp_path).start()
    yield server
    server.kill()


def test_backends_of_a_killed_postmaster_do_not_stand_in_the_way(postgres: Postgres) -> None:
    # One that is frozen does not notice that its postmaster is gone.
    with psycopg.connect(postgres.url) as busy:
        backend = psutil.Process(busy.info.backend_pid)
        backend.suspend()
        postgres.signal(signal.SIGKILL)
        assert psutil.pid_exists(backend.pid)
        postgres.restart()
        assert postgres.healthy()
        assert not backend.is_running() or backend.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("wrong", ["not-it", ""])
def test_postgres_asks_for_its_secret(postgres: Postgres, wrong: str) -> None:
    url = postgres.url.replace(postgres.secret, wrong)
    with pytest.raises(psycopg.OperationalError, match=r"password"):
        psycopg.connect(url)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path).start()
    yield server
    server.kill()


@pytest.mark.parametrize("wrong", ["not-it", None])
def test_valkey_asks_for_its_secret(valkey: Valkey, wrong: str | None) -> None:
    stranger = redis.Redis(host="127.0.0.1", port=valkey.port, password=wrong)
    with stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
