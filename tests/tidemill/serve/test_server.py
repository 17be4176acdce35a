"""Where the API listens, and what its process keeps out of collections."""

import gc
import re

import pytest

from tidemill.errors import CannotListen
from tidemill.serve.server import listen


def test_what_a_server_starts_with_is_left_out_of_collections(api_url: str) -> None:
    assert api_url
    assert gc.get_freeze_count() > 10_000


@pytest.mark.parametrize("host", ["a..b", "x" * 64, ".a", "no host", "\ud800", "192.0.2.1"])
def test_a_host_that_is_none_of_this_machine_is_said_clearly(host: str) -> None:
    with pytest.raises(CannotListen, match=re.escape(host)) as caught:
        listen(host, 0)
    assert len(str(caught.value).splitlines()) == 1
