"""Uploads and downloads that break off, and one that is refused before it is sent."""

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from storage.objects import object_keys
from storage.settings import DEFAULT_TENANT


def stored(service: Any) -> set[str]:
    return {info.key for info in service.store.list(f"files/{DEFAULT_TENANT}/")}


def test_an_upload_that_breaks_off_leaves_nothing(http: httpx.Client, service: Any) -> None:
    before = stored(service)
    staging = service.settings.storage.home / "objects" / ".staging"
    begin = (
        b"--b\r\nContent-Disposition: form-data; name=purpose\r\n\r\nbatch\r\n"
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    )

    class Broken(Exception):
        pass

    def body() -> Iterator[bytes]:
        yield begin
        for _ in range(40):
            yield b"x" * 100_000
        wait_until(lambda: bool(list(staging.iterdir())))  # there is something to be left
        raise Broken

    with pytest.raises(Broken):
        http.post(
            "/v1/files",
            content=body(),
            headers={"content-type": "multipart/form-data; boundary=b"},
        )
    wait_until(lambda: not list(staging.iterdir()))
    assert stored(service) == before


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_download_that_breaks_off_closes_its_file(
    client: OpenAI, http: httpx.Client, service: Any
) -> None:
    # More than the sockets between the two can hold.
    made = client.files.create(file=("in.jsonl", b"x" * 60_000_000), purpose="batch")
    path = service.settings.storage.home / "objects" / object_keys.upload(DEFAULT_TENANT, made.id)

    def is_open() -> bool:
        return any(
            os.path.realpath(link) == str(path.resolve())
            for link in Path("/proc/self/fd").iterdir()
        )

    with http.stream("GET", f"/v1/files/{made.id}/content") as answer:
        pieces = answer.iter_raw()
        next(pieces)
        assert is_open()
    wait_until(lambda: not is_open())


def test_a_size_that_is_announced_is_refused_before_it_is_sent(
    serve_with: Callable[..., Any],
) -> None:
    service = serve_with(max_file_bytes=1000)
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
