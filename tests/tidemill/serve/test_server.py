"""Where the API listens, and what its process keeps out of collections."""

import gc
import re
import time

import httpx
import pytest
from fastapi import FastAPI

from storage.settings import ApiSettings
from tidemill.errors import CannotListen
from tidemill.serve.server import ServerThread, listen, url_of


def test_what_a_server_starts_with_is_left_out_of_collections(api_url: str) -> None:
    assert api_url
    assert gc.get_freeze_count() > 10_000


def test_a_server_tells_the_time_and_stops_when_it_is_told() -> None:
    with listen("127.0.0.1", 0) as listener:
        with ServerThread(FastAPI(), listener, ApiSettings()), httpx.Client() as client:
            first = later = client.get(url_of(listener)).headers["date"]
            deadline = time.monotonic() + 10
            while later == first:
                assert time.monotonic() < deadline
                time.sleep(0.1)
                later = client.get(url_of(listener)).headers["date"]
            client.close()
            began = time.monotonic()
        assert time.monotonic() - began < 0.7


@pytest.mark.parametrize("host", ["a..b", "x" * 64, ".a", "no host", "\ud800", "192.0.2.1"])
def test_a_host_that_is_none_of_this_machine_is_said_clearly(host: str) -> None:
    with pytest.raises(CannotListen, match=re.escape(host)) as caught:
        listen(host, 0)
    assert len(str(caught.value).splitlines()) == 1
