"""What every response to a hostile client must be."""

from collections.abc import Callable

import httpx
import pytest

KEYS = ("message", "type", "param", "code")


def _check(response: httpx.Response) -> None:
    assert response.status_code < 500, response.text
    assert response.headers["x-request-id"]
    if response.status_code >= 400:
        assert response.headers["content-type"] == "application/json"
        assert tuple(response.json()) == ("error",)
        error = response.json()["error"]
        assert tuple(error) == KEYS
        assert isinstance(error["message"], str)
        assert isinstance(error["type"], str)
        assert len(response.content) < 1_000, "what was sent is not sent back"


@pytest.fixture(scope="session")
def check() -> Callable[[httpx.Response], None]:
    """Fails unless a response is no 5xx, and has the envelope where it is an error."""
    return _check
