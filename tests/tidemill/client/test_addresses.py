"""Ids, addresses and keys are looked at before a call, on every call."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from tidemill.client import Client
from tidemill.errors import ClientError, InvalidAddress, InvalidId, ServiceUnreachable

NOBODY = "http://127.0.0.1:1"
CALLS: dict[str, Callable[[Client, str], Any]] = {
    "file": Client.file,
    "delete_file": Client.delete_file,
    "download": lambda client, value: client.download(value).__enter__(),
    "create_batch": lambda client, value: client.create_batch(value, "/v1/chat/completions"),
    "batch": Client.batch,
    "watch": lambda client, value: next(client.watch(value)),
    "cancel": Client.cancel,
    "pause": Client.pause,
    "resume": Client.resume,
    "retry": Client.retry,
}


@pytest.mark.parametrize(
    "bad",
    [
        *("../../etc/passwd", "..", ".", "", "a/b", "a\\b", "a?x=1", "a#b", "a%2fb", "a b", "a\n"),
        *("\0", "é", "a;b", "@x", "x" * 200),
    ],
)
def test_what_cannot_be_an_id_is_refused_before_every_call(bad: str) -> None:
    with Client(NOBODY) as client:
        for call in CALLS.values():
            with pytest.raises(InvalidId, match="cannot be an id"):
                call(client, bad)


@pytest.mark.parametrize("call", CALLS)
def test_an_id_goes_through(call: str) -> None:
    with Client(NOBODY, retries=0) as client, pytest.raises(ServiceUnreachable):
        CALLS[call](client, "batch_01k4-x")


@pytest.mark.parametrize(
    "url",
    [
        *("nonsense", "", "localhost:8000", "ftp://host", "http://", "http://host:99999"),
        *("http://[::1", "http://host/?a=b", "http://host/#x", "http://ho st", "file:///etc"),
        *("http://host:0", "http://host:x", "//host", "http://\x1b[2J"),
        *("http://a..b", "http://.a", "http://a..", f"http://{'x' * 64}:1", f"http://a.{'x' * 64}"),
    ],
)
def test_an_address_that_is_none_is_named(url: str) -> None:
    with pytest.raises(InvalidAddress, match="TIDEMILL_URL") as caught:
        Client(url)
    assert repr(url) in str(caught.value)
    assert isinstance(caught.value, ClientError)


@pytest.mark.parametrize(
    ("given", "root"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000"),
        ("https://host/tide/v1", "https://host/tide"),
        ("http://[::1]:8000/", "http://[::1]:8000"),
        ("http://host.:8000", "http://host.:8000"),
        (f"http://{'x' * 63}", f"http://{'x' * 63}"),
        ("http://bücher.example", "http://xn--bcher-kva.example"),
        ("http://user:secret@host:81", "http://host:81"),
    ],
)
def test_an_address_is_shown_without_its_password(given: str, root: str) -> None:
    with Client(given) as client:
        assert client.url == root


@pytest.mark.parametrize(
    "key", ["s3cret\n", " s3cret", "schlüssel", "\x1b", "s3cret\r\nX-Other: 1"]
)
def test_a_key_that_no_header_carries_is_not_shown(key: str) -> None:
    with pytest.raises(InvalidAddress, match="TIDEMILL_API_KEY") as caught:
        Client(NOBODY, key)
    assert key.strip() not in str(caught.value)


def test_nobody_is_said_to_be_there_within_a_second() -> None:
    began = time.thread_time(), time.monotonic()
    with Client(NOBODY) as client, pytest.raises(ServiceUnreachable, match="No service answers"):
        client.models()
    waited = time.monotonic() - began[1]
    assert waited < 5, "with time for a machine that is busy; four tries would wait for 3.75 s more"
