"""Who may use a service that asks for no key, and that one with keys cares for the key alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from api.app import create_app
from storage.settings import Settings
from storage.stores import Stores
from storage.wakeups import LocalWakeups

KEYS = ("message", "type", "param", "code")
Ask = Callable[..., httpx.Response]


@pytest.fixture
def asking(tmp_path: Path) -> Callable[..., Ask]:
    """Make an application with these settings, and ask it."""

    def make(**values: Any) -> Ask:
        settings = Settings.load(home=tmp_path, **values)
        stores = Stores.open(settings.storage)
        stores.database.migrate()
        app = create_app(settings.api, stores=stores, wakeups=LocalWakeups())

        def ask(method: str, path: str, headers: list[tuple[str, str]], **more: Any) -> Any:
            async def call() -> httpx.Response:
                transport = httpx.ASGITransport(app)
                request = httpx.Request(method, f"http://localhost:8000{path}", **more)
                request.headers = httpx.Headers(
                    [*((k, v) for k, v in request.headers.items() if k != "host"), *headers]
                )
                async with httpx.AsyncClient(transport=transport) as client:
                    return await client.send(request)

            return anyio.run(call)

        return ask

    return make


def host(name: str, **more: str) -> list[tuple[str, str]]:
    return [("host", name), *((key.replace("_", "-"), value) for key, value in more.items())]


def test_without_keys_only_this_machines_own_pages_are_served(asking: Callable[..., Ask]) -> None:
    ask = asking(allowed_hosts="tidemill.example, app.example:3000")
    served = [
        host("localhost"),
        host("LOCALHOST:8000"),
        host("127.0.0.1:8000"),
        host("127.8.8.8"),
        host("[::1]:8000"),
        host("tidemill.example"),
        host("tidemill.example:8443"),
        host("app.example:3000"),
        host("localhost:8000", origin="http://localhost:8000"),
        host("localhost:8000", origin="https://tidemill.example"),
        host("localhost:8000", origin="http://app.example:3000", sec_fetch_site="cross-site"),
        host("localhost:8000", sec_fetch_site="none"),
        host("localhost:8000", sec_fetch_site="same-origin"),
    ]
    refused = [
        host("evil.example"),
        host("evil.example:8000"),
        host("localhost.evil.example"),
        host("127.0.0.1.evil.example"),
        host("tidemill.example.evil.example"),
        host("0.0.0.0:8000"),
        host("10.0.0.1:8000"),
        host("app.example:3001"),
        host("localhost:8000", origin="http://evil.example"),
        host("localhost:8000", origin="http://evil.example#localhost:8000"),
        host("localhost:8000", origin="http://localhost:3000"),
        host("localhost:8000", origin="null"),
        host("localhost:8000", origin=""),
        host("localhost:8000", sec_fetch_site="cross-site"),
        host("localhost:8000", sec_fetch_site="same-site"),
        host("localhost:8000", origin="http://app.example:3001", sec_fetch_site="same-origin"),
    ]
    for headers in served:
        assert ask("GET", "/v1/models", headers).status_code == 200, headers
    for headers in refused:
        response = ask("GET", "/v1/models", headers)
        assert response.status_code == 403, headers
        error = response.json()["error"]
        assert (tuple(error), error["code"]) == (KEYS, "site_not_allowed")
        assert "TIDEMILL_ALLOWED_HOSTS" in error["message"]
        assert response.headers["x-request-id"]
    for path in ("/healthz", "/docs", "/openapi.json", "/v1/nothing"):
        assert ask("GET", path, host("evil.example")).status_code == 403


def test_a_form_that_another_site_posts_stores_nothing(asking: Callable[..., Ask]) -> None:
    ask = asking()
    form = {"files": {"file": ("a", b"x")}, "data": {"purpose": "batch"}}
    crossing = host("127.0.0.1:8000", origin="https://evil.example", sec_fetch_site="cross-site")
    assert ask("POST", "/v1/files", crossing, **form).status_code == 403
    assert ask("GET", "/v1/files", host("127.0.0.1:8000")).json()["data"] == []
    own = host("127.0.0.1:8000", origin="http://127.0.0.1:8000", sec_fetch_site="same-origin")
    assert ask("POST", "/v1/files", own, **form).status_code == 200


def test_with_keys_the_key_alone_decides(asking: Callable[..., Ask]) -> None:
    ask = asking(api_keys="secret")
    foreign = host("evil.example", origin="http://evil.example", sec_fetch_site="cross-site")
    keyed = [*foreign, ("authorization", "Bearer secret")]
    assert ask("GET", "/v1/models", keyed).status_code == 200
    assert ask("GET", "/v1/models", foreign).status_code == 401
    assert ask("GET", "/healthz", foreign).status_code == 200


@pytest.mark.parametrize(
    ("headers", "param"),
    [
        ([], "Host"),
        ([("host", "")], "Host"),
        ([("host", "local host")], "Host"),
        ([("host", "localhost/v1")], "Host"),
        ([("host", "user@localhost")], "Host"),
        ([("host", "localhost:80:80")], "Host"),
        ([("host", "localhost"), ("host", "localhost")], "Host"),
        ([("host", "localhost"), ("Host", "evil.example")], "Host"),
        (
            [*host("localhost"), ("authorization", "Bearer a"), ("authorization", "Bearer b")],
            "Authorization",
        ),
        ([*host("localhost"), ("range", "bytes=0-1"), ("range", "bytes=2-3")], "Range"),
        (
            [*host("localhost"), ("idempotency-key", "a"), ("idempotency-key", "b")],
            "Idempotency-Key",
        ),
    ],
)
@pytest.mark.parametrize("keys", ["", "secret"])
def test_a_header_that_must_stand_once(
    asking: Callable[..., Ask], headers: list[tuple[str, str]], param: str, keys: str
) -> None:
    refused = asking(api_keys=keys)("GET", "/v1/models", headers)
    error = refused.json()["error"]
    assert (refused.status_code, error["param"], error["code"]) == (400, param, "invalid_header")
