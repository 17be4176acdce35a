"""What is particular to S3: broken connections, open uploads, and errors by table."""

import hashlib
import re
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr

from storage.errors import (
    ConfigurationError,
    ObjectExists,
    ObjectStoreError,
)
from storage.objects import open_store
from storage.objects.local import LocalStore
from storage.objects.s3 import S3Store
from storage.settings import StorageSettings

DATA = bytes(range(256)) * 4096


def test_open_store_follows_the_settings(tmp_path: Path) -> None:
    local = open_store(StorageSettings(home=tmp_path))
    assert isinstance(local, LocalStore)
    assert local.root == tmp_path / "objects"
    spaced = open_store(StorageSettings(object_store_url=(tmp_path / "a b").as_uri()))
    assert isinstance(spaced, LocalStore)
    assert spaced.root == tmp_path / "a b"
    s3 = open_store(
        StorageSettings(object_store_url="s3://bucket/some/prefix/", s3_region="us-east-1")
    )
    assert isinstance(s3, S3Store)
    assert (s3.bucket, s3.prefix) == ("bucket", "some/prefix/")
    for url in ("gs://bucket", "s3://", "/folder", "file://host/folder"):
        with pytest.raises(ConfigurationError):
            open_store(StorageSettings(object_store_url=url))


@pytest.mark.servers
class TestOnServer:
    def test_a_wrong_secret(self, s3_settings: StorageSettings) -> None:
        wrong = s3_settings.model_copy(update={"s3_secret_access_key": SecretStr("wrong")})
        with pytest.raises(ConfigurationError):
            open_store(wrong).put("a", b"x")

    def test_no_such_bucket(self, s3_settings: StorageSettings) -> None:
        elsewhere = s3_settings.model_copy(update={"object_store_url": "s3://missing"})
        with pytest.raises((ConfigurationError, ObjectStoreError)):
            list(open_store(elsewhere).list(""))

    def test_open_uploads_are_swept(self, s3_settings: StorageSettings) -> None:
        store = open_store(s3_settings)
        assert isinstance(store, S3Store)
        for _ in range(2):
            store.client.create_multipart_upload(
                Bucket=store.bucket, Key=f"{store.prefix}parts/left"
            )
        assert store.sweep(3600) == 0
        assert store.sweep(-5, keys=re.compile("left")) == 0
        assert store.sweep(-5, keys=re.compile("parts/left")) == 2
        assert store.sweep(-5) == 0

    def test_a_completion_sent_twice_is_the_same_write(self, s3_settings: StorageSettings) -> None:
        """As when the first answer is lost and the client library sends it again."""
        store = open_store(s3_settings)
        assert isinstance(store, S3Store)
        real = store.client.complete_multipart_upload

        def twice(**request: object) -> object:
            real(**request)
            return real(**request)

        store.client.complete_multipart_upload = twice
        data = DATA * 6
        assert store.put("twice", data, if_absent=True).size == len(data)
        with pytest.raises(ObjectExists):
            store.put("twice", data + b"!", if_absent=True)

    def test_a_broken_connection_is_resumed(self, s3_settings: StorageSettings) -> None:
        store = open_store(s3_settings)
        store.put("long", DATA)
        assert s3_settings.s3_endpoint_url is not None
        with cut_after(300_000, s3_settings.s3_endpoint_url) as (url, cuts):
            through = open_store(s3_settings.model_copy(update={"s3_endpoint_url": url}))
            with through.reader("long", start=7) as stream:
                assert stream.read() == DATA[7:]
        assert len(cuts) == 2


class _Parts:
    """S3's side of one multipart upload, and its limit."""

    def __init__(self) -> None:
        self.data = bytearray()

    def create_multipart_upload(self, **_: object) -> dict[str, str]:
        return {"UploadId": "u"}

    def upload_part(self, *, PartNumber: int, Body: bytes, **_: object) -> dict[str, str]:
        assert PartNumber <= 10_000
        self.data += Body
        return {"ETag": "e"}

    def complete_multipart_upload(self, **_: object) -> None:
        pass

    def head_object(self, **_: object) -> dict[str, object]:
        now = datetime.now(UTC)
        return {
            "ContentLength": len(self.data),
            "ETag": "e",
            "Metadata": {},
            "LastModified": now,
        }


def test_parts_grow_so_that_ten_thousand_hold_terabytes() -> None:
    client = _Parts()
    # Parts of one byte that stand for 16 MiB each: 327,680 of them are 5 TiB.
    store = S3Store(client, bucket="b", prefix="", part_bytes=1)
    data = bytes(range(256)) * 1_280
    store.put("large", data)
    assert client.data == data


@contextmanager
def cut_after(limit: int, upstream: str) -> Iterator[tuple[str, list[int]]]:
    """A proxy that cuts its first two connections after ``limit`` bytes of answer."""
    host, port = upstream.removeprefix("http://").split(":")
    cuts: list[int] = []

    class Proxy(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection((host, int(port))) as server:
                threading.Thread(target=pump, args=(self.request, server), daemon=True).start()
                passed = 0
                while block := server.recv(65536):
                    passed += len(block)
                    if passed > limit and len(cuts) < 2:
                        cuts.append(passed)
                        break
                    self.request.sendall(block)
                self.request.shutdown(socket.SHUT_RDWR)

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while block := source.recv(65536):
                target.sendall(block)
            target.shutdown(socket.SHUT_RDWR)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # a client that goes away is no matter here

    with Server(("127.0.0.1", 0), Proxy) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", cuts
        server.shutdown()
        thread.join()


@pytest.mark.servers
def test_a_body_that_was_cut_before_its_first_byte_is_no_object(
    s3_settings: StorageSettings,
) -> None:
    """A store that keeps it under the announced digest must not make us believe that digest."""
    store = S3Store.open(s3_settings, bucket="batches", prefix="cut")
    data = b"answers" * 100
    # What SeaweedFS keeps of a PUT without checksum whose connection ends after the head.
    store.client.put_object(
        Bucket="batches",
        Key="cut/parts/1.jsonl",
        Body=b"",
        Metadata={"sha256": hashlib.sha256(data).hexdigest()},
    )
    with pytest.raises(ObjectExists):
        store.put("parts/1.jsonl", data, if_absent=True)


@pytest.mark.servers
def test_the_head_of_a_put_without_its_body_leaves_nothing(s3_settings: StorageSettings) -> None:
    store = S3Store.open(s3_settings, bucket="batches", prefix="cut")
    sent: list[bytes] = []

    def send_the_head_alone(request: Any, **_: Any) -> None:
        address = urlsplit(request.url)
        lines = [f"PUT {address.path} HTTP/1.1", f"Host: {address.netloc}"]
        lines += [
            f"{name}: {value.decode() if isinstance(value, bytes) else value}"
            for name, value in request.headers.items()
            if name.lower() not in ("host", "expect")
        ]
        with socket.create_connection((str(address.hostname), address.port or 80)) as raw:
            raw.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
            raw.shutdown(socket.SHUT_WR)
            sent.append(raw.recv(1000))

    store.client.meta.events.register("before-send.s3.PutObject", send_the_head_alone)
    store.put("parts/2.jsonl", b"answers", if_absent=True)
    assert sent
    with store.reader("parts/2.jsonl") as stream:
        assert stream.read() == b"answers"


@pytest.mark.parametrize("cut", [b'"full', b'"full-etag', b'"full-etag"', b'"full-etag"\r\n'])
def test_an_answer_whose_head_is_cut_is_asked_for_again(cut: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nLast-Modified: Mon, 23 Nov 2026 08:00:00 GMT\r\n"
    head += b"Content-Length: %d\r\nETag: %s"
    answers = [head % (12, cut), head % (1234, b'"full-etag"\r\n\r\n')]

    class Answering(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline() not in (b"\r\n", b""):
                pass
            self.wfile.write(answers.pop(0))

    with socketserver.TCPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        settings = StorageSettings(
            s3_endpoint_url=f"http://127.0.0.1:{server.server_address[1]}",
            s3_region="us-east-1",
            s3_access_key_id="key",
            s3_secret_access_key=SecretStr("secret"),
            s3_addressing_style="path",
        )
        info = S3Store.open(settings, bucket="bucket", prefix="").head("object")
        server.shutdown()
    assert (info.size, info.etag) == (1234, '"full-etag"')
    assert not answers
