"""Requests for a batch that are none: each wrong parameter by name, and bodies of other kinds."""

from typing import Any

import httpx
import pytest


def post(http: httpx.Client, **body: Any) -> httpx.Response:
    request = {"endpoint": "/v1/completions", "completion_window": "24h", **body}
    return http.post("/v1/batches", json={k: v for k, v in request.items() if v != "absent"})


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"input_file_id": "absent"}, "input_file_id", "missing_required_parameter"),
        ({"endpoint": "absent"}, "endpoint", "missing_required_parameter"),
        ({"completion_window": "absent"}, "completion_window", "missing_required_parameter"),
        ({"input_file_id": "file-unknown"}, "input_file_id", "file_not_found"),
        ({"input_file_id": "file-\u0000"}, "input_file_id", "file_not_found"),
        ({"input_file_id": 7}, "input_file_id", "invalid_type"),
        ({"endpoint": "/v1/embeddings"}, "endpoint", "invalid_value"),
        ({"endpoint": "/v1/nonsense"}, "endpoint", "invalid_value"),
        ({"completion_window": "24"}, "completion_window", "invalid_value"),
        ({"completion_window": "0h"}, "completion_window", "invalid_value"),
        ({"completion_window": "99999d"}, "completion_window", "invalid_value"),
        ({"completion_window": "٣h"}, "completion_window", "invalid_value"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata", "invalid_value"),
        ({"metadata": {"k" * 65: ""}}, "metadata." + "k" * 65, "invalid_value"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k", "invalid_value"),
        ({"metadata": {"k": 1}}, "metadata.k", "invalid_type"),
        ({"metadata": []}, "metadata", "invalid_type"),
        ({"output_expires_after": {"seconds": 7200}}, "output_expires_after.anchor", None),
        (
            {"output_expires_after": {"anchor": "created_at", "seconds": 1}},
            "output_expires_after.seconds",
            "invalid_value",
        ),
        ({"tidemill": {"priorty": 1}}, "tidemill.priorty", "unknown_parameter"),
        ({"tidemill": {"priority": 1000}}, "tidemill.priority", "invalid_value"),
        ({"tidemill": {"on_invalid": "ignore"}}, "tidemill.on_invalid", "invalid_value"),
        ({"tidemill": {"estimate": 1}}, "tidemill.estimate", "invalid_type"),
        ({"tidemill": {"estimate": "true"}}, "tidemill.estimate", "invalid_type"),
        ({"tidemill": {"sample": "batch_none"}}, "tidemill.sample", "batch_not_found"),
        ({"tidemill": {"sample": "\u0000"}}, "tidemill.sample", "batch_not_found"),
        ({"tidemill": {"sample": ""}}, "tidemill.sample", "invalid_value"),
        ({"surprise": 1}, "surprise", "unknown_parameter"),
    ],
)
def test_requests_that_are_refused(
    http: httpx.Client, input_id: str, body: dict[str, Any], param: str, code: str | None
) -> None:
    refused = post(http, **{"input_file_id": input_id, **body})
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert (error["param"], error["type"]) == (param, "invalid_request_error")
    assert error["code"] == (code or "missing_required_parameter")


def test_an_endpoint_to_come_says_so(http: httpx.Client, input_id: str) -> None:
    error = post(http, input_file_id=input_id, endpoint="/v1/responses").json()["error"]
    assert "not served yet" in error["message"]


@pytest.mark.parametrize("content", [b"{", b"", b"[]", b'"text"', b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_json_object(http: httpx.Client, content: bytes) -> None:
    refused = http.post(
        "/v1/batches", content=content, headers={"content-type": "application/json"}
    )
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "invalid_json"


def test_a_body_of_another_type_or_too_large(http: httpx.Client) -> None:
    assert http.post("/v1/batches", content=b"{}").status_code == 400
    refused = http.post("/v1/batches", json={"metadata": {"k": "v" * 2_000_000}})
    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "request_too_large")


def test_text_that_is_not_unicode(http: httpx.Client) -> None:
    refused = http.post(
        "/v1/batches",
        content=b'{"input_file_id": "x", "endpoint": "/v1/completions", "completion_window": "24h",'
        b' "metadata": {"k": "\\ud800"}}',
        headers={"content-type": "application/json"},
    )
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "metadata.k"
