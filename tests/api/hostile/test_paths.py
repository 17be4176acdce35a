"""Odd methods, paths and queries, on every route."""

from collections.abc import Callable

import httpx
import pytest

Check = Callable[[httpx.Response], None]
METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")
PATHS = {
    "/healthz": {"GET"},
    "/readyz": {"GET"},
    "/docs": {"GET"},
    "/openapi.json": {"GET"},
    "/v1/files": {"GET", "POST"},
    "/v1/files/file-1": {"DELETE", "GET"},
    "/v1/files/file-1/content": {"GET"},
    "/v1/batches": {"GET", "POST"},
    "/v1/batches/batch_1": {"GET"},
    "/v1/batches/batch_1/cancel": {"POST"},
    "/v1/batches/batch_1/pause": {"POST"},
    "/v1/batches/batch_1/resume": {"POST"},
    "/v1/batches/batch_1/retry": {"POST"},
    "/v1/models": {"GET"},
    "/v1/models/some/name": {"GET"},
}
WITH_ID = [
    ("GET", "/v1/files/{}"),
    ("DELETE", "/v1/files/{}"),
    ("GET", "/v1/files/{}/content"),
    ("GET", "/v1/batches/{}"),
    ("POST", "/v1/batches/{}/cancel"),
    ("POST", "/v1/batches/{}/pause"),
    ("POST", "/v1/batches/{}/resume"),
    ("POST", "/v1/batches/{}/retry"),
    ("GET", "/v1/models/{}"),
]


@pytest.mark.parametrize("path", PATHS)
def test_allow_names_every_method_of_a_path(http: httpx.Client, check: Check, path: str) -> None:
    allowed = PATHS[path] | ({"HEAD"} if "GET" in PATHS[path] else set())
    for method in (*METHODS, "HEAD", "OPTIONS", "TRACE", "PROPFIND"):
        if method in allowed:
            continue
        refused = http.request(method, path)
        assert refused.status_code == 405, method
        assert refused.headers["allow"] == ", ".join(sorted(allowed))
        if method == "HEAD":
            assert refused.content == b""
        else:
            check(refused)
            assert refused.json()["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize("path", [path for path, methods in PATHS.items() if "GET" in methods])
def test_head_is_get_without_its_body(http: httpx.Client, path: str) -> None:
    told, head = http.get(path), http.head(path)
    assert (head.status_code, head.content) == (told.status_code, b"")
    assert int(head.headers["content-length"]) > 0
    if path == "/v1/batches":  # the times of its batches change meanwhile
        return
    for name in ("content-type", "content-length", "content-security-policy"):
        assert head.headers.get(name) == told.headers.get(name)
    assert http.get(path).status_code == told.status_code, "the connection is still of use"


def test_head_of_a_file_and_of_a_range(http: httpx.Client, input_id: str) -> None:
    path = f"/v1/files/{input_id}/content"
    for headers in ({}, {"range": "bytes=2-5"}, {"range": "bytes=9999-"}):
        told, head = http.get(path, headers=headers), http.head(path, headers=headers)
        assert (head.status_code, head.content) == (told.status_code, b"")
        for name in ("content-length", "content-range", "etag", "accept-ranges"):
            assert head.headers.get(name) == told.headers.get(name)


@pytest.mark.parametrize(
    "name",
    [
        "%00",
        "%ff%fe",
        "%ed%a0%80",
        "%2e%2e%2f%2e%2e%2fetc",
        "..%5c..",
        "a" * 65,
        "a" * 5_000,
        "file-%F0%9F%98%80",
        "'%20OR%201=1--",
        "%7B%7D",
        "%0d%0aX:%20y",
        "batch_1%00",
        "batch_1%20",
        "+",
        "null",
        "-1",
    ],
)
@pytest.mark.parametrize(("method", "path"), WITH_ID)
def test_ids_that_are_none(
    http: httpx.Client, check: Check, method: str, path: str, name: str
) -> None:
    refused = http.request(method, path.format(name))
    check(refused)
    assert refused.status_code == 404


@pytest.mark.parametrize("path", ["/v1/files", "/v1/batches"])
@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("limit=0", 400),
        ("limit=-1", 400),
        ("limit=1e3", 400),
        ("limit=true", 400),
        ("limit=", 400),
        ("limit=%00", 400),
        ("limit=%d9%a3", 400),
        ("limit=" + "9" * 400, 400),
        ("limit=" + "9" * 5_000, 400),
        ("limit=NaN", 400),
        ("after=%00", 400),
        ("after=%ff", 400),
        ("after=", 400),
        ("after=" + "a" * 5_000, 400),
        ("after=none-such", 400),
        ("limit=1&limit=2", 200),
        ("unknown=1", 200),
        ("%ff=%fe&=&&a", 200),
    ],
)
def test_odd_queries(http: httpx.Client, check: Check, path: str, query: str, status: int) -> None:
    response = http.get(f"{path}?{query}")
    check(response)
    assert response.status_code == status


@pytest.mark.parametrize("query", ["order=up", "order=", "purpose=%00", "purpose=" + "a" * 65])
def test_odd_queries_of_files(http: httpx.Client, check: Check, query: str) -> None:
    response = http.get(f"/v1/files?{query}")
    check(response)
    assert response.status_code == 400
