"""What a single connection may ask of the server: amounts, times, and how many there may be."""

import json
import re
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest
from openai import OpenAI

HOST = b"Host: localhost\r\n"
GET = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"
UPLOAD = b"POST /v1/files HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=b\r\n" + HOST
JSON = b"POST /v1/batches HTTP/1.1\r\nContent-Type: application/json\r\n" + HOST
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


def read_all(connection: socket.socket) -> bytes:
    """Everything until the server closes; a reset after it is no matter."""
    received = b""
    with suppress(ConnectionError):
        while piece := connection.recv(65_536):
            received += piece
    return received


def exchange(service: Any, data: bytes) -> bytes:
    with service.connect() as connection:
        with suppress(ConnectionError):  # it may be refused while it is still sending
            connection.sendall(data)
        return read_all(connection)


def statuses(responses: bytes) -> list[bytes]:
    return re.findall(rb"HTTP/1\.1 (\d{3}) ", responses)


def refusal(response: bytes) -> tuple[int, str]:
    """Status and code of a single response that is an error with the envelope."""
    head, _, body = response.partition(b"\r\n\r\n")
    assert b"\r\nx-request-id: req_" in head
    assert b"\r\nconnection: close" in head
    error = json.loads(body)["error"]
    assert tuple(error) == ("message", "type", "param", "code")
    return int(head.split()[1]), error["code"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 2_000_000, (431, "headers_too_large")),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 40_000, (431, "headers_too_large")),
        (b"GET / HTTP/1.1\r\n" + b"a" * 40_000, (431, "headers_too_large")),
        (
            b"GET / HTTP/1.1\r\n" + b"A: " + b"b" * 33_000 + b"\r\n" + HOST + b"\r\n",
            (431, "headers_too_large"),
        ),
        (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n" * 100 + b"\r\n", (431, "headers_too_large")),
        (b"GET /" + b"a" * 8_192, (414, "url_too_long")),
        (b"GET /" + b"a" * 2_000_000, (414, "url_too_long")),
        (b"GET /v1/files?a=" + b"a" * 9_000 + b" HTTP/1.1\r\n\r\n", (414, "url_too_long")),
        (UPLOAD + CHUNKED + b"5;" + b"x" * 2_000_000, (431, "headers_too_large")),
        (UPLOAD + CHUNKED + b"1\r\na\r\n0\r\nX: " + b"y" * 2_000_000, (431, "headers_too_large")),
        (JSON + CHUNKED + b"1\r\n \r\n" * 10_000, (400, "malformed_request")),
    ],
)
def test_too_much(service: Any, data: bytes, expected: tuple[int, str]) -> None:
    assert refusal(exchange(service, data)) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET / HTTP/1.1\r\nNo colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: \x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"CONNECT evil.example:443 HTTP/1.1\r\n" + HOST + b"\r\n",
        JSON + b"Content-Length: 5\r\n" + CHUNKED + b"0\r\n\r\n",
        JSON + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
        JSON + b"Content-Length: -1\r\n\r\n",
        JSON + b"Content-Length: 99999999999999999999999\r\n\r\n",
        JSON + b"Content-Length: 5x\r\n\r\n",
        JSON + CHUNKED + b"zz\r\n",
        JSON + CHUNKED + b"5\r\nabcdefgh\r\n",
        JSON + CHUNKED + b"fffffffffffffffffff\r\n",
        JSON + b"Transfer-Encoding: gzip, chunked, x\r\n\r\n",
    ],
)
def test_what_is_no_http(service: Any, data: bytes) -> None:
    assert refusal(exchange(service, data)) == (400, "malformed_request")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: local", (408, "request_timeout")),
        (b"G", (408, "request_timeout")),
        (JSON + b"Content-Length: 100\r\n\r\n", (408, "request_timeout")),
        (UPLOAD + CHUNKED + b"5\r\n--", (408, "request_timeout")),
        (UPLOAD + b"Content-Length: 100\r\n\r\n--b\r\n", (408, "request_timeout")),
    ],
)
def test_what_is_never_finished(tight_service: Any, data: bytes, expected: tuple[int, str]) -> None:
    began = time.monotonic()
    assert refusal(exchange(tight_service, data)) == expected
    assert time.monotonic() - began >= 0.45


@pytest.mark.parametrize("data", [b"", b"\r\n", GET])
def test_an_idle_connection_is_closed_without_a_word(tight_service: Any, data: bytes) -> None:
    received = exchange(tight_service, data)
    assert received.count(b"HTTP/1.1") == data.count(b"GET")


@pytest.mark.parametrize(
    ("dripped", "told"), [(b"\r\n" * 50, b""), (b"GET /" + b"a" * 95, b"HTTP/1.1 408")]
)
def test_single_bytes_prolong_nothing(tight_service: Any, dripped: bytes, told: bytes) -> None:
    with tight_service.connect() as connection:
        connection.settimeout(0.05)
        for byte in dripped:
            connection.sendall(bytes([byte]))
            try:
                received = connection.recv(65_536)
            except TimeoutError:
                continue
            break
        else:
            raise AssertionError("the connection was never given up")
    assert received.startswith(told)
    assert bool(received) == bool(told)


def test_a_body_that_goes_on_may_take_its_time(tight_service: Any) -> None:
    form = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n%s\r\n'
        b"--b\r\nContent-Disposition: form-data; name=purpose\r\n\r\nbatch\r\n--b--\r\n"
    ) % (b"x" * 400)
    with tight_service.connect() as connection:
        connection.sendall(UPLOAD + b"Content-Length: %d\r\n\r\n" % len(form))
        for start in range(0, len(form), 30):
            connection.sendall(form[start : start + 30])
            time.sleep(0.1)  # 300 bytes a second, and longer in all than any of the times
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")


def test_a_response_that_nobody_reads_is_given_up(tight_service: Any) -> None:
    data = b"x" * 20_000_000
    made = tight_service.openai().files.create(file=("a", data), purpose="batch")
    with tight_service.connect() as connection:
        connection.sendall(
            b"GET /v1/files/%s/content HTTP/1.1\r\n%s\r\n" % (made.id.encode(), HOST)
        )
        time.sleep(2.5)
        assert len(read_all(connection)) < len(data)


@pytest.mark.parametrize("close", [b"", b"Connection: close\r\n"])
def test_a_response_that_is_read_slowly_is_whole(tight_service: Any, close: bytes) -> None:
    data = b"x" * 8_000_000
    made = tight_service.openai().files.create(file=("a", data), purpose="batch")
    with tight_service.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        connection.sendall(
            b"GET /v1/files/%s/content HTTP/1.1\r\n%s%s\r\n" % (made.id.encode(), HOST, close)
        )
        received = 0
        for _ in range(20):
            received += len(connection.recv(300_000))
            time.sleep(0.1)
        assert received + len(read_all(connection)) > len(data)


@pytest.fixture
def crowded(serve_with: Callable[..., Any]) -> Any:
    """A service that takes few connections, and waits for each as long as usual."""
    return serve_with(max_connections=8)


def hold(service: Any, unfinished: bytes, count: int) -> None:
    for _ in range(count):
        service.connect().sendall(unfinished)


def test_whoever_only_holds_connections_keeps_nobody_out(crowded: Any) -> None:
    for unfinished in (b"", b"GET /healthz HTT", GET):
        hold(crowded, unfinished, 40)
        assert httpx.get(f"{crowded.url}/readyz").status_code == 200
    hold(crowded, JSON + b"Content-Length: 9\r\n\r\n{", 40)
    deadline = time.monotonic() + 10  # a body stands still only after a while
    while httpx.get(f"{crowded.url}/readyz").status_code != 200:
        assert time.monotonic() < deadline


def test_bodies_that_come_in_drops_give_way(crowded: Any) -> None:
    connections = [crowded.connect() for _ in range(8)]
    for connection in connections:
        connection.sendall(UPLOAD + b"Content-Length: 100000\r\n\r\n--")
    deadline = time.monotonic() + 10
    status = 0
    while status != 200:  # not one of them stands still
        assert time.monotonic() < deadline
        for connection in connections:
            with suppress(ConnectionError):
                connection.sendall(b"b")
        status = httpx.get(f"{crowded.url}/readyz").status_code


def test_a_connection_too_many_is_told_so(crowded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("STALLED_SECONDS", "SLOW_SECONDS"):
        monkeypatch.setattr(f"api.server.connection.{limit}", 1_000)
    hold(crowded, JSON + b"Content-Length: 90\r\n\r\n{", 8)
    deadline = time.monotonic() + 10
    while (response := exchange(crowded, GET + GET)).startswith(b"HTTP/1.1 200"):
        assert time.monotonic() < deadline
    assert refusal(response) == (503, "too_many_connections")


def test_pipelined_requests_are_answered_in_order(service: Any) -> None:
    with service.connect() as connection:
        connection.sendall(GET + GET.replace(b"healthz", b"nothing") + b"garbage\r\n\r\n")
        received = read_all(connection)
    assert statuses(received) == [b"200", b"404"]


def test_a_client_that_has_sent_everything_is_still_answered(service: Any) -> None:
    for data, expected in (
        (GET, [b"200"]),
        (GET + GET.replace(b"healthz", b"v1/models"), [b"200", b"200"]),
        (b"GET /healthz HTT", [b"400"]),
        (JSON + b"Content-Length: 9\r\n\r\n{", [b"400"]),
        (UPLOAD + CHUNKED + b"5\r\n--", [b"400"]),
    ):
        with service.connect() as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            received = read_all(connection)
        assert statuses(received) == expected


def test_requests_that_never_cease_are_not_kept(service: Any) -> None:
    received = exchange(service, GET * 5_000)
    assert 0 < received.count(b"HTTP/1.1 200") < 50


def test_a_refused_upload_is_not_read_to_its_end(tight_service: Any) -> None:
    with tight_service.connect() as connection:
        connection.sendall(
            b"POST /v1/files HTTP/1.1\r\nContent-Type: text/plain\r\n"
            + HOST
            + b"Content-Length: 1000000000\r\n\r\n"
        )
        connection.sendall(b"x" * 1_000_000)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 400")


def test_a_client_that_waits_to_be_asked_for_its_body(client: OpenAI, service: Any) -> None:
    with service.connect() as connection:
        connection.sendall(JSON + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert connection.recv(65_536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"{}")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 400")


def test_another_protocol_is_not_switched_to(service: Any) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    received = exchange(service, b"GET /healthz HTTP/1.1\r\n" + HOST + upgrade)
    assert received.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in received
