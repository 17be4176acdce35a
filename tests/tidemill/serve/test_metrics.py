"""The Prometheus endpoint as a scraper sees it."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import httpx
import psutil
import pytest
from prometheus_client import CollectorRegistry, Counter

from tidemill.errors import CannotListen
from tidemill.serve import metrics_server
from tidemill.serve.metrics import serve_metrics

SITE = {"Host": "attacker.example"}


def test_a_scrape_sees_every_registry_and_the_process() -> None:
    first, second = CollectorRegistry(), CollectorRegistry()
    Counter("first", "One.", registry=first).inc(3)
    Counter("second", "Two.", registry=second)
    with serve_metrics("127.0.0.1", 0, [first, second]) as port:
        answer = httpx.get(f"http://127.0.0.1:{port}/metrics")
    assert answer.status_code == 200
    lines = answer.text.splitlines()
    assert "first_total 3.0" in lines
    assert "second_total 0.0" in lines
    assert any(line.startswith("process_resident_memory_bytes ") for line in lines)


def test_without_a_port_nothing_listens() -> None:
    before = listening()
    with serve_metrics("127.0.0.1", None, [CollectorRegistry()]) as port:
        assert port is None
        assert listening() == before


def listening() -> int:
    """Sockets of this process that wait for connections."""
    found = psutil.Process().net_connections(kind="tcp")
    return sum(each.status == psutil.CONN_LISTEN for each in found)


def test_a_port_that_is_taken_is_said_clearly() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(CannotListen, match="TIDEMILL_METRICS_PORT"),
        serve_metrics("127.0.0.1", taken.getsockname()[1], []),
    ):
        pass


@pytest.mark.parametrize("host", ["a..b", "x" * 64, "no host", "\ud800"])
def test_a_host_that_cannot_be_one_is_said_clearly(host: str) -> None:
    with (
        pytest.raises(CannotListen, match="TIDEMILL_METRICS_HOST"),
        serve_metrics(host, 0, []),
    ):
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A loopback port, which may be called by one other name as well."""
    allowed = frozenset({"scrapes.example"})
    with serve_metrics("127.0.0.1", 0, [CollectorRegistry()], allowed_hosts=allowed) as port:
        assert port is not None
        yield port


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (200, {}),
        (200, {"Host": "localhost"}),
        (200, {"Host": "LOCALHOST:1"}),
        (200, {"Host": "[::1]:9464"}),
        (200, {"Host": "scrapes.example:9464"}),
        (200, {"Sec-Fetch-Site": "none"}),
        (403, SITE),
        (403, {"Host": "attacker.example:9464"}),
        (403, {"Host": "127.0.0.1.attacker.example"}),
        (403, {"Host": "a b"}),
        (403, {"Host": ""}),
        (403, {"Origin": "http://attacker.example"}),
        (403, {"Origin": "null"}),
        (403, {"Sec-Fetch-Site": "cross-site"}),
    ],
)
def test_a_loopback_port_answers_this_machine_alone(
    port: int, status: int, headers: dict[str, str]
) -> None:
    answer = httpx.get(f"http://127.0.0.1:{port}/metrics", headers=headers)
    assert answer.status_code == status
    assert ("process_resident" in answer.text, "Refused: " in answer.text) == (
        status == 200,
        status == 403,
    )


def test_a_request_with_two_hosts_is_refused(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\nHost: attacker.example\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.0 403"


def test_a_port_for_other_machines_is_scraped_by_any_name() -> None:
    with serve_metrics("0.0.0.0", 0, [CollectorRegistry()]) as port:
        answer = httpx.get(f"http://127.0.0.1:{port}/metrics", headers=SITE)
    assert answer.status_code == 200


def test_connections_are_few_and_short(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(metrics_server, "CONNECTION_SECONDS", 0.8)
    with serve_metrics("127.0.0.1", 0, [CollectorRegistry()]) as port, ExitStack() as stack:
        assert port is not None
        most = metrics_server.MOST_CONNECTIONS
        slow, *silent = [stack.enter_context(connect(port)) for _ in range(most)]
        with connect(port) as one_more:
            assert one_more.recv(1) == b""
        slow.setblocking(False)
        with pytest.raises(BlockingIOError):
            slow.recv(1)
        with pytest.raises(ConnectionError):
            drip(slow)  # a byte now and then keeps none open
        for each in silent:
            with suppress(ConnectionError):
                while each.recv(65536):
                    pass
        with connect(port) as broken:
            broken.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert scraped(port)
    assert capfd.readouterr() == ("", "")


def drip(connection: socket.socket) -> None:
    for _ in range(50):
        connection.sendall(b"G")
        time.sleep(0.1)


def scraped(port: int) -> bool:
    """Whether the port answers, within a few seconds."""
    for _ in range(100):
        with suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{port}/metrics").status_code == 200
        time.sleep(0.05)
    return False


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=5)
