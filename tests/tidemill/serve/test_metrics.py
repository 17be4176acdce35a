"""The Prometheus endpoint as a scraper sees it."""

import socket

import httpx
import psutil
import pytest
from prometheus_client import CollectorRegistry, Counter

from tidemill.errors import CannotListen
from tidemill.serve.metrics import serve_metrics


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
