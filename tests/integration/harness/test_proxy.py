"""The proxy does to a connection what it is told, and only while it is told so."""

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from integration.harness.proxy import Answer, Blackhole, Cut, Proxy, Refuse, Slow

DATA = bytes(range(256)) * 1_000


class Store(BaseHTTPRequestHandler):
    """Takes what is put and gives `DATA`."""

    protocol_version = "HTTP/1.1"
    put: list[int]

    def do_GET(self) -> None:
        self._send(DATA)

    def do_PUT(self) -> None:
        self.put.append(len(self.rfile.read(int(self.headers["Content-Length"]))))
        self._send(b"")

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass  # the proxy drops connections on purpose


@pytest.fixture
def put() -> list[int]:
    """The sizes of the bodies that reached the server."""
    return []


@pytest.fixture
def proxy(put: list[int]) -> Iterator[Proxy]:
    handler = type("Handler", (Store,), {"put": put})
    with Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        with Proxy("127.0.0.1", server.server_port) as proxy:
            yield proxy
        server.shutdown()
        thread.join()


@pytest.fixture
def connect(proxy: Proxy) -> Iterator[Callable[[], http.client.HTTPConnection]]:
    opened: list[http.client.HTTPConnection] = []

    def make() -> http.client.HTTPConnection:
        opened.append(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10))
        return opened[-1]

    yield make
    for connection in opened:
        connection.close()


Connect = Callable[[], http.client.HTTPConnection]


def get(connection: http.client.HTTPConnection) -> tuple[int, bytes]:
    connection.request("GET", "/")
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_nothing_is_changed_where_there_is_no_fault(
    proxy: Proxy, connect: Connect, put: list[int]
) -> None:
    connection = connect()
    for _ in range(3):
        assert get(connection) == (200, DATA)
    connection.request("PUT", "/", DATA)
    assert connection.getresponse().status == 200
    assert put == [len(DATA)]
    assert not proxy.struck


def test_slow_holds_for_an_open_connection_and_ends(proxy: Proxy, connect: Connect) -> None:
    connection = connect()
    assert get(connection) == (200, DATA)
    proxy.set(Slow(delay=0.2, bytes_per_second=1e6))
    began = time.monotonic()
    assert get(connection) == (200, DATA)
    assert time.monotonic() - began > 0.6  # the request, the answer's blocks, and their bytes
    proxy.set(None)
    began = time.monotonic()
    assert get(connection) == (200, DATA)
    assert time.monotonic() - began < 0.5


def test_an_answer_is_cut_in_the_middle(proxy: Proxy, connect: Connect) -> None:
    proxy.set(Cut(after=10_000))
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        get(connect())
    assert proxy.struck == {"cut": 1}
    # Read by hand: after a reset the client above shows nothing of what had come.
    received = b""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        with suppress(ConnectionError):
            while block := connection.recv(65_536):
                received += block
    assert 0 < len(received) <= 10_000
    proxy.set(None)
    assert get(connect()) == (200, DATA)


def test_a_lost_answer_has_had_its_effect(proxy: Proxy, connect: Connect, put: list[int]) -> None:
    proxy.set(Cut(after=0))
    connection = connect()
    connection.request("PUT", "/", b"once")
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        connection.getresponse()
    assert put == [4]


def test_refused_and_back_on_the_same_port(proxy: Proxy, connect: Connect) -> None:
    connection = connect()
    assert get(connection) == (200, DATA)
    port = proxy.port
    proxy.set(Refuse())
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        pass
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        get(connection)
    proxy.set(None)
    assert proxy.port == port
    assert get(connect()) == (200, DATA)


def test_a_black_hole_keeps_the_request_until_it_ends(proxy: Proxy, connect: Connect) -> None:
    proxy.set(Blackhole())
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(get, connect())
        with pytest.raises(TimeoutError):
            waiting.result(0.5)
        proxy.set(None)
        assert waiting.result(5) == (200, DATA)


def test_an_error_answer_comes_whole_and_its_request_never_arrives(
    proxy: Proxy, connect: Connect, put: list[int]
) -> None:
    proxy.set(Answer(503))
    connection = connect()
    connection.request("PUT", "/", DATA * 4)
    answer = connection.getresponse()
    assert answer.status == 503
    assert b"<Code>" in answer.read()
    assert put == []
    assert proxy.struck == {"answer": 1}


def test_a_share_of_the_connections_is_hit(proxy: Proxy, connect: Connect) -> None:
    proxy.set(Answer(500, share=0.5))
    statuses = [get(connect())[0] for _ in range(40)]
    assert 8 <= statuses.count(500) <= 32
    assert statuses.count(200) == 40 - statuses.count(500)
