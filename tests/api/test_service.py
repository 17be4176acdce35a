"""Errors of every route, keys and tenants, health, models, and the description of it all."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import httpx
import openai
import pytest
from openai import OpenAI
from structlog.testing import capture_logs

from api.app import create_app
from api.auth import check_bind, find_tenant, is_loopback
from storage.errors import (
    ConfigurationError,
    ObjectNotFound,
    ObjectStoreUnavailable,
    OutOfSpace,
    StorageError,
)
from storage.registry import models
from storage.settings import Settings
from storage.stores import Stores
from storage.wakeups import LocalWakeups

KEYS = ("message", "type", "param", "code")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nonsense", 404, "unknown_url"),
        ("GET", "/nonsense", 404, "unknown_url"),
        ("POST", "/v1/chat/completions", 404, "unknown_url"),
        ("PUT", "/v1/batches", 405, "method_not_allowed"),
        ("DELETE", "/v1/batches/batch_1", 405, "method_not_allowed"),
        ("GET", "/v1/files/file-1", 404, None),
        ("GET", "/v1/files/%2e%2e%2fsecret", 404, "unknown_url"),
        ("GET", "/v1/models/none", 404, "model_not_found"),
        ("GET", "/v1/models/%00", 404, "model_not_found"),
    ],
)
def test_every_error_has_the_envelope(
    http: httpx.Client, method: str, path: str, status: int, code: str | None
) -> None:
    refused = http.request(method, path)
    assert refused.status_code == status
    assert tuple(refused.json()) == ("error",)
    assert tuple(refused.json()["error"]) == KEYS
    assert refused.json()["error"]["code"] == code
    assert refused.headers["x-request-id"].startswith("req_")


def test_a_request_id_comes_back(http: httpx.Client, client: OpenAI) -> None:
    assert http.get("/healthz", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == (
        "mine-1"
    )
    odd = http.get("/healthz", headers={"x-request-id": "a b\tc"}).headers["x-request-id"]
    assert odd.startswith("req_")
    assert str(client.models.list()._request_id).startswith("req_")


def test_no_other_site_may_read_it(http: httpx.Client) -> None:
    answer = http.get("/v1/files", headers={"origin": "https://elsewhere.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


def make_app(home: Path, **values: Any) -> Any:
    settings = Settings.load(home=home, **values)
    return create_app(
        settings.api,
        stores=Stores.open(settings.storage),
        wakeups=LocalWakeups(),
    )


def ask(app: Any, path: str) -> httpx.Response:
    async def call() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.get(path)

    return anyio.run(call)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ZeroDivisionError("secret detail"), 500, "internal_error"),
        (StorageError("secret detail"), 500, "internal_error"),
        (ObjectStoreUnavailable("secret detail"), 503, "object_store_unavailable"),
        (OutOfSpace("secret detail"), 507, "out_of_space"),
    ],
)
def test_what_goes_wrong_inside_stays_inside(
    tmp_path: Path, error: Exception, status: int, code: str
) -> None:
    app = make_app(tmp_path)

    def explode() -> None:
        raise error

    app.add_api_route("/explode", explode)
    answer = ask(app, "/explode")
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert tuple(answer.json()["error"]) == KEYS
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"]


def test_one_access_line_a_request_without_its_query(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    with capture_logs() as lines:
        answer = ask(app, "/v1/nonsense?token=secret")
    (line,) = lines
    assert (line["method"], line["path"], line["status"]) == ("GET", "/v1/nonsense", 404)
    assert line["request_id"] == answer.headers["x-request-id"]
    assert "secret" not in str(line)


def test_ready(http: httpx.Client) -> None:
    assert http.get("/healthz").json() == {"status": "ok"}
    ready = http.get("/readyz")
    assert (ready.status_code, ready.json()) == (
        200,
        {"status": "ok", "database": "ok", "object_store": "ok"},
    )


def test_not_ready_says_which_part(tmp_path: Path) -> None:
    no_database = make_app(tmp_path, database_url="postgresql://u:p@127.0.0.1:1/none")
    answer = ask(no_database, "/readyz")
    assert (answer.status_code, answer.json()) == (
        503,
        {"status": "unavailable", "database": "unreachable", "object_store": "ok"},
    )
    assert ask(no_database, "/healthz").status_code == 200
    refused = ask(no_database, "/v1/models")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "database_unavailable")

    no_store = make_app(
        tmp_path,
        object_store_url="s3://bucket/prefix",
        s3_endpoint_url="http://127.0.0.1:1",
        s3_region="us-east-1",
        s3_access_key_id="key",
        s3_secret_access_key="secret",
    )
    answer = ask(no_store, "/readyz")
    assert (answer.status_code, answer.json()) == (
        503,
        {"status": "unavailable", "database": "ok", "object_store": "unreachable"},
    )


def test_probes_of_a_store_that_hangs_are_one_and_take_nobodys_thread(
    http: httpx.Client, service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.routes.health.PROBE_SECONDS", 0.2)
    hangs, asked = threading.Event(), []

    def head(store: Any, key: str) -> Any:
        asked.append(key)
        hangs.wait(10)
        raise ObjectNotFound(key)

    monkeypatch.setattr(type(service.store), "head", head)
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: http.get("/readyz"), range(50)))
    assert {(answer.status_code, answer.json()["object_store"]) for answer in answers} == {
        (503, "unreachable")
    }
    assert len(asked) == 1
    assert http.get("/v1/batches").status_code == 200
    hangs.set()
    deadline = time.monotonic() + 10
    while http.get("/readyz").status_code != 200:
        assert time.monotonic() < deadline


def test_models(client: OpenAI, service: Any) -> None:
    models.add(service.database, "smollm2", "smollm2")
    models.add(service.database, "org/other", "/models/other")
    listed = client.models.list()
    assert [(model.id, model.object) for model in listed] == [
        ("org/other", "model"),
        ("smollm2", "model"),
    ]
    one = client.models.retrieve("org/other")
    assert (one.id, one.owned_by) == ("org/other", "tidemill")
    assert abs(one.created - time.time()) < 60


def test_tenants_never_see_each_other(serve_with: Callable[..., Any]) -> None:
    service = serve_with(api_keys="alice:key-a, bob:key-b")
    alice, bob = service.openai("key-a"), service.openai("key-b")
    made = alice.files.create(file=("in.jsonl", b"{}\n"), purpose="batch")
    options: dict[str, Any] = {
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "extra_headers": {"Idempotency-Key": "shared"},
    }
    batch = alice.batches.create(input_file_id=made.id, **options)
    for call, owned in (
        (bob.files.retrieve, made.id),
        (bob.files.content, made.id),
        (bob.files.delete, made.id),
        (bob.batches.retrieve, batch.id),
        (bob.batches.cancel, batch.id),
    ):
        with pytest.raises(openai.NotFoundError):
            call(owned)
    with pytest.raises(openai.BadRequestError):
        bob.batches.create(input_file_id=made.id, **options)
    with pytest.raises(openai.BadRequestError):
        bob.files.list(after=made.id)
    with pytest.raises(openai.BadRequestError):
        bob.batches.list(after=batch.id)
    assert bob.files.list().data == []
    assert bob.batches.list().data == []
    # The same key of two tenants is two keys.
    own = bob.files.create(file=("in.jsonl", b"{}\n"), purpose="batch")
    assert bob.batches.create(input_file_id=own.id, **options).id != batch.id
    assert alice.batches.retrieve(batch.id).status == "validating"


def test_wrong_keys(serve_with: Callable[..., Any]) -> None:
    service = serve_with(api_keys="right")
    for key in ("wrong", "righ", "right2"):
        with pytest.raises(openai.AuthenticationError) as caught:
            service.openai(key).files.list()
        assert caught.value.code == "invalid_api_key"
        assert "wrong" not in str(caught.value)
    http = service.http()
    refused = http.get("/v1/models")
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert tuple(refused.json()["error"]) == KEYS
    assert http.get("/v1/models", headers={"authorization": "Basic right"}).status_code == 401
    upload = http.post("/v1/files", files={"file": ("a", b"x" * 5_000_000)})
    assert upload.status_code == 401
    assert http.get("/healthz").status_code == 200
    assert http.get("/readyz").status_code == 200
    assert service.openai("right").files.list().data == []
    assert not list(service.store.list("files/"))


def test_the_key_comes_before_anything_of_the_request(serve_with: Callable[..., Any]) -> None:
    service = serve_with(api_keys="schlüssel")
    http = service.http()
    for path in ("/docs", "/openapi.json", "/v1/files/", "/v1/batches/b/cancel", "/nothing"):
        for method in ("GET", "POST", "OPTIONS"):
            refused = http.request(method, path, content=b"{")
            assert (refused.status_code, tuple(refused.json()["error"])) == (401, KEYS)
    # Only the heads are sent: nothing waits for a body.
    for target in (b"/v1/batches", b"/v1/files"):
        with service.connect() as connection:
            connection.sendall(
                b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n" % target
            )
            assert connection.recv(100).startswith(b"HTTP/1.1 401")
    for header in ("Bearer schlüssel", "bearer  schlüssel"):
        keyed = {b"authorization": header.encode()}
        assert http.get("/docs", headers=keyed).status_code == 200
        assert http.get("/openapi.json", headers=keyed).status_code == 200


def test_find_tenant() -> None:
    keys = {"a-secret": "a", "b-schlüssel": "b"}
    assert find_tenant("a-secret", keys) == "a"
    assert find_tenant("b-schlüssel", keys) == "b"
    assert find_tenant("", keys) is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_loopback_needs_no_key(host: str, tmp_path: Path) -> None:
    assert is_loopback(host)
    check_bind(host, Settings.load(home=tmp_path).api)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", ""])
def test_other_addresses_do(host: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="TIDEMILL_API_KEYS"):
        check_bind(host, Settings.load(home=tmp_path).api)
    check_bind(host, Settings.load(home=tmp_path, api_keys="k").api)
