"""The Prometheus endpoint: a port of its own, so that it is never open with the API."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from prometheus_client import GCCollector, PlatformCollector, ProcessCollector, make_wsgi_app
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
    address: str,
    port: int | None,
    collectors: Iterable[Collector | CollectorRegistry],
    *,
    allowed_hosts: frozenset[str] = frozenset(),
) -> Iterator[int | None]:
    """Answer ``GET /metrics`` while the context lasts; do nothing where ``port`` is ``None``.

    Gives the port, which for 0 is a free one.

    The process's own figures (memory, CPU time, open files, garbage collection) are added.
    ``allowed_hosts`` are those of the API's settings, which a loopback port may be called by too.

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
    from tidemill.serve.metrics_server import serve_scrapes

    with ExitStack() as stack:
        try:
            scrapes = serve_scrapes(make_wsgi_app(registry), address, port, allowed_hosts)
            bound = stack.enter_context(scrapes)
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no name has such parts"
            raise CannotListen(
                f"Metrics cannot listen on {address}:{port}: {reason}. Choose another "
                "TIDEMILL_METRICS_HOST or TIDEMILL_METRICS_PORT, or leave them out."
            ) from error
        yield bound
