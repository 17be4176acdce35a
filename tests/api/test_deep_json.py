"""JSON that is nested without end, in the place of a request: an ordinary 400, and no 500."""

import httpx
import pytest


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"metadata": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}",
        b'{"input_file_id": ' + b"[" * 900 + b"]" * 900 + b"}",
    ],
)
def test_deep_nesting_is_refused_like_any_bad_request(http: httpx.Client, body: bytes) -> None:
    answer = http.post("/v1/batches", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert len(answer.content) < 1_000, "it is not sent back"
