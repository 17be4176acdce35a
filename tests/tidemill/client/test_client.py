"""The client against a live API."""

import socket
import threading
import tracemalloc
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tidemill.client import Client, Upload
from tidemill.errors import ApiError, ClientError, ServiceUnreachable

MIB = 1024 * 1024


def test_a_file_goes_up_and_comes_down_the_same(client: Client, tmp_path: Path) -> None:
    path = tmp_path / 'odd "name".jsonl'
    path.write_bytes(bytes(range(256)) * 5000)
    file = client.upload(Upload.from_path(path))
    assert (file.bytes, file.purpose) == (path.stat().st_size, "batch")
    with client.download(file.id) as pieces:
        assert b"".join(pieces) == path.read_bytes()
    client.delete_file(file.id)
    with pytest.raises(ApiError) as caught:
        client.file(file.id)
    assert caught.value.status == 404


def test_an_upload_is_streamed(client: Client) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(64):
            yield b"x" * MIB

    tracemalloc.start()
    try:
        assert client.upload(Upload("big.jsonl", chunks)).bytes == 64 * MIB
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 32 * MIB


def test_batches_are_created_listed_and_cancelled(client: Client) -> None:
    file = client.upload(Upload("in.jsonl", lambda: [b"{}\n"]))
    made = [
        client.create_batch(
            file.id,
            "/v1/chat/completions",
            metadata={"input": "in.jsonl"},
            options={"on_invalid": "skip"},
        )
        for _ in range(3)
    ]
    assert made[0].status == "validating"
    assert made[0].metadata == {"input": "in.jsonl"}
    assert [batch.id for batch in client.batches(2)] == [made[2].id, made[1].id]
    assert client.cancel(made[0].id).status == "cancelling"
    assert client.batch(made[0].id).id == made[0].id


def test_the_services_own_words_arrive_in_the_error(client: Client) -> None:
    with pytest.raises(ApiError) as caught:
        client.create_batch("file-missing", "/v1/chat/completions")
    assert (caught.value.status, caught.value.code) == (400, "file_not_found")
    assert "file-missing" in str(caught.value)


def test_a_wrong_key_is_refused(api_url: str) -> None:
    with Client(api_url, "wrong") as client, pytest.raises(ApiError) as caught:
        client.models()
    assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")


def test_nobody_there_is_said_with_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with Client(url, retries=1) as client, pytest.raises(ServiceUnreachable) as caught:
            client.models()
    assert url in str(caught.value)
    assert "tidemill up" in str(caught.value)


def test_something_that_is_no_tidemill_is_told_apart() -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with Client(url) as client, pytest.raises(ClientError, match="is it one"):
            client.models()
        server.shutdown()
