"""The Prometheus endpoint: a port of its own, so that it is never open with the API."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import (
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)
from prometheus_client.core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from tidemill.errors import CannotListen


class _Joined(Collector):
    """Several registries as one."""

    def __init__(self, collectors: Iterable[Collector | CollectorRegistry]) -> None:
        self._collectors = tuple(collectors)

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        for collector in self._collectors:
            yield from collector.collect()


@contextmanager
def serve_metrics(
    address: str, port: int | None, collectors: Iterable[Collector | CollectorRegistry]
) -> Iterator[int | None]:
    """Answer ``GET /metrics`` while the context lasts; do nothing where ``port`` is ``None``.

    Gives the port, which for 0 is a free one.

    The process's own figures (memory, CPU time, open files, garbage collection) are added.

    Raises:
        CannotListen: the address cannot be had.
    """
    if port is None:
        yield None
        return
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(_Joined(collectors))
    try:
        server, thread = start_http_server(port, address, registry)
    except OSError as error:
        raise CannotListen(
            f"Metrics cannot listen on {address}:{port}: {error.strerror}. Choose another "
            "TIDEMILL_METRICS_PORT, or leave it out."
        ) from error
    try:
        yield int(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5.0)
