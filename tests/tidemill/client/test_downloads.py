"""Downloads whose connection breaks off go on where they ended."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tidemill.client import Client
from tidemill.errors import ApiError, ServiceUnreachable

CONTENT = bytes(range(256)) * 4_096  # 1 MiB


class Service(ThreadingHTTPServer):
    """A service whose connections end early.

    Attributes:
        cuts: after how many bytes each response ends, one after the other; then none does.
        ranges: whether it gives parts of a file.
        asked: the `Range` of each request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cuts: list[int] = []
        self.ranges = True
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Service

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.asked.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        start = start if self.server.ranges else 0
        content = CONTENT[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        cut = self.server.cuts.pop(0) if self.server.cuts else len(content)
        self.wfile.write(content[:cut])
        self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setattr("tidemill.client.transport.FIRST_WAIT_SECONDS", 0.001)
    with Service() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def downloaded(service: Service) -> bytes:
    with Client(service.url) as client, client.download("file-x") as pieces:
        return b"".join(pieces)


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("cuts", [[], [0], [700_000], [300_000, 300_000, 0, 1], [1_048_575]])
def test_every_byte_comes_once(broken: Service, cuts: list[int], *, ranges: bool) -> None:
    broken.cuts, broken.ranges = list(cuts), ranges
    assert downloaded(broken) == CONTENT
    assert len(broken.asked) == len(cuts) + 1


def test_only_the_rest_is_asked_for(broken: Service) -> None:
    broken.cuts = [600_000]
    assert downloaded(broken) == CONTENT
    first, second = broken.asked
    assert first is None
    assert second is not None
    assert 0 < int(second.removeprefix("bytes=").rstrip("-")) <= 600_000


def test_a_connection_that_breaks_off_at_every_try_is_given_up(broken: Service) -> None:
    broken.cuts, broken.ranges = [300_000] * 100, False
    with pytest.raises(ServiceUnreachable, match="broke off"):
        downloaded(broken)
    assert len(broken.asked) < 20


def test_a_file_that_is_gone_meanwhile_is_said(client: Client) -> None:
    with pytest.raises(ApiError) as caught, client.download("file-none"):
        pass
    assert caught.value.status == 404
