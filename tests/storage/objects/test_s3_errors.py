"""Errors of S3: each by a table, and what they leave of an upload."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import SecretStr

from storage.errors import ConfigurationError, ObjectStoreUnavailable, OutOfSpace, StorageError
from storage.objects.s3 import S3Store
from storage.settings import StorageSettings


def test_a_server_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    store = store_at(f"http://127.0.0.1:{port}")
    with pytest.raises(ObjectStoreUnavailable):
        store.head("a")


@pytest.mark.parametrize("url", ["http://a b", "nowhere", "http://", "http://-a-"])
def test_an_endpoint_that_is_none_is_said_by_its_setting(url: str) -> None:
    with pytest.raises(ConfigurationError, match="TIDEMILL_S3_ENDPOINT_URL"):
        store_at(url)


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (500, "InternalError", "object_store_unavailable"),
        (503, "SlowDown", "object_store_unavailable"),
        (507, "InsufficientStorage", "out_of_space"),
        (507, "SomethingOfTheirOwn", "out_of_space"),
        (403, "QuotaExceeded", "out_of_space"),
        (400, "XMinioAdminBucketQuotaExceeded", "out_of_space"),
        (403, "AccessDenied", "configuration_error"),
        (400, "InvalidArgument", "object_store_error"),
        (409, "ConditionalRequestConflict", "object_store_unavailable"),
    ],
)
def test_errors_are_translated_by_table(status: int, code: str, error: str) -> None:
    with answering(status, code) as (url, _), pytest.raises(StorageError) as caught:
        store_at(url).put("a", b"x", if_absent=True)
    assert caught.value.code == error


def test_a_quota_that_is_reached_in_the_middle_of_an_object_drops_the_upload() -> None:
    with answering(403, "QuotaExceeded") as (url, dropped):
        store = store_at(url)
        with pytest.raises(OutOfSpace):
            store.put("a", bytes(40_000_000))
    assert len(dropped) == 1


def store_at(url: str) -> S3Store:
    settings = StorageSettings(
        s3_endpoint_url=url,
        s3_region="us-east-1",
        s3_access_key_id="key",
        s3_secret_access_key=SecretStr("secret"),
        s3_addressing_style="path",
    )
    store = S3Store.open(settings, bucket="bucket", prefix="")
    # One try is enough here: the library's own waits between tries only take time.
    store.client.meta.events.unregister("needs-retry.s3", unique_id="retry-config-s3")
    return store


@contextmanager
def answering(status: int, code: str) -> Iterator[tuple[str, list[str]]]:
    """A server that begins uploads, and answers all that is written with one error.

    The list is of the uploads that were begun and dropped; none may be left open.
    """
    begun: list[str] = []
    dropped: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            begun.append(self.path)
            tag = "InitiateMultipartUploadResult"
            body = f"<{tag}><UploadId>1</UploadId></{tag}>".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_DELETE(self) -> None:
            dropped.append(begun.pop())
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", dropped
        finally:
            server.shutdown()
            thread.join()
    assert not begun, "an upload was left open"
