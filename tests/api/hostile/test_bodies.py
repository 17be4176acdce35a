"""Odd bodies, types, headers and forms."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

Check = Callable[[httpx.Response], None]
BODIES = [
    b"",
    b"null",
    b"true",
    b"7",
    b"NaN",
    b"-Infinity",
    b'"text"',
    b"[]",
    b"{",
    b"{}{}",
    b"\xff\xfe{}",
    b"\xef\xbb\xbf{}",
    b"{}".decode().encode("utf-16"),
    b'{"a": 1e999}',
    b"9" * 5_000,
    b'{"a": ' + b"9" * 5_000 + b"}",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"metadata": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}",
    b'{"input_file_id": ' + b"[" * 900 + b"]" * 900 + b"}",
    b'{"\\ud800": 1}',
    b'{"a\\u0000b": 1}',
    b'{"completion_window": {"\\udfff": []}}',
    b'{"metadata": {"\\ud800": "\\ud800"}}',
]

NO_INTEGERS: list[Any] = [True, False, "7200", "1", 1.5, None, [], {}, 10**30, -(10**400), 1e300]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:24]))
@pytest.mark.parametrize("path", ["/v1/batches", "/v1/batches/batch_1/retry", "/v1/files"])
def test_odd_bodies(http: httpx.Client, check: Check, path: str, body: bytes) -> None:
    refused = http.post(path, content=body, headers={"content-type": "application/json"})
    check(refused)
    # An empty body of a retry is one: that batch is not there.
    assert refused.status_code in ((400, 404) if path.endswith("retry") else (400,))


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/json; charset=utf-16",
        "application/json; charset=\xff",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary="',
        "multipart/form-data; boundary=" + "b" * 5_000,
        "multipart/form-data; boundary=\xff\xfe",
        "multipart/form-data; boundary*=utf-8''b; boundary=b",
        "/",
        ";;;",
        "\xff",
    ],
)
@pytest.mark.parametrize("path", ["/v1/batches", "/v1/files"])
def test_odd_content_types(http: httpx.Client, check: Check, path: str, content_type: str) -> None:
    headers = {b"content-type": content_type.encode("latin-1")}
    refused = http.post(path, content=b"--b\r\n\r\n--b--\r\n", headers=headers)
    check(refused)
    assert refused.status_code == 400


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (field, value)
        for field in ("tidemill.priority", "output_expires_after.seconds")
        for value in NO_INTEGERS
    ],
)
def test_what_is_no_integer(
    http: httpx.Client, check: Check, input_id: str, field: str, value: Any
) -> None:
    outer, inner = field.split(".")
    anchor = {"anchor": "created_at"} if outer == "output_expires_after" else {}
    body = {
        "input_file_id": input_id,
        "endpoint": "/v1/completions",
        "completion_window": "24h",
        outer: {**anchor, inner: value},
    }
    for path in ("/v1/batches", "/v1/batches/batch_1/retry"):
        if path.endswith("retry"):
            if outer != "tidemill" or value is None:
                continue
            body = {outer: body[outer]}
        refused = http.post(path, json=body)
        check(refused)
        error = refused.json()["error"]
        assert (refused.status_code, error["param"]) == (400, field)


def test_an_integer_with_a_fraction_of_zero_is_one(http: httpx.Client, input_id: str) -> None:
    body = {
        "input_file_id": input_id,
        "endpoint": "/v1/completions",
        "completion_window": "24h",
        "tidemill": {"priority": 3.0},
    }
    made = http.post("/v1/batches", json=body)
    assert made.json()["tidemill"]["priority"] == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("range", "bytes=9999999999999999999999-"),
        ("range", "bytes=" + "0-1," * 1_000),
        ("range", "bytes=-0"),
        ("range", "bytes=--1"),
        ("range", "bytes=5-2"),
        ("range", "chunks=0-1"),
        ("range", "bytes=\xb2-"),
        ("range", "\xff"),
        ("if-range", "\xff"),
        ("x-request-id", "\xff" * 100),
        ("authorization", "Bearer \xff"),
        ("authorization", "\xff"),
        ("accept-encoding", "\xff;q=9"),
        ("expect", "\xff"),
        ("idempotency-key", "k" * 256),
        ("x-http-method-override", "DELETE"),
        ("x-forwarded-for", "\xff, , ,"),
        ("x-forwarded-proto", "\xff"),
        ("content-length", "0"),
    ],
)
def test_odd_headers(
    http: httpx.Client, check: Check, input_id: str, name: str, value: str
) -> None:
    headers = {name.encode(): value.encode("latin-1")}
    for method, path in (("GET", f"/v1/files/{input_id}/content"), ("GET", "/v1/batches")):
        check(http.request(method, path, headers=headers))
    refused = http.post("/v1/batches", headers=headers)
    check(refused)
    assert refused.status_code == 400


@pytest.mark.parametrize(
    "fields",
    [
        {"purpose": "batch\x00"},
        {"purpose": "batch", "expires_after[seconds]": "7200"},
        {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "x"},
        {
            "purpose": "batch",
            "expires_after[anchor]": "created_at",
            "expires_after[seconds]": "9" * 5_000,
        },
        {"purpose": "batch", "expires_after[": "1"},
        {"purpose": "batch", "expires_after": "1", "expires_after[anchor]": "created_at"},
        {"purpose": ""},
        {"purpose[]": "batch"},
    ],
)
def test_odd_forms(http: httpx.Client, check: Check, fields: dict[str, str]) -> None:
    refused = http.post("/v1/files", files={"file": ("a", b"x")}, data=fields)
    check(refused)
    assert refused.status_code == 400


def test_a_form_of_a_great_many_fields(http: httpx.Client) -> None:
    field = b"--b\r\nContent-Disposition: form-data; name=purpose\r\n\r\n\r\n"
    refused = http.post(
        "/v1/files",
        content=field * 160_000,
        headers={"content-type": "multipart/form-data; boundary=b"},
    )
    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "request_too_large")


def test_of_a_doubled_name_the_last_value_counts(http: httpx.Client, input_id: str) -> None:
    body = json.dumps({"input_file_id": input_id, "endpoint": "/v1/completions"})[:-1]
    body += ', "completion_window": "1h", "completion_window": "2h"}'
    made = http.post("/v1/batches", content=body, headers={"content-type": "application/json"})
    assert made.json()["completion_window"] == "2h"
