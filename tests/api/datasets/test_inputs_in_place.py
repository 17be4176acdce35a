"""Batches over datasets where they lie: what the create call takes, keeps and refuses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

ENDPOINT = "/v1/completions"


def create(http: httpx.Client, key: str = "none", **body: Any) -> httpx.Response:
    request = {"endpoint": ENDPOINT, "completion_window": "24h", **body}
    headers = {"Authorization": f"Bearer {key}"}
    if "idem" in request:
        headers["Idempotency-Key"] = request.pop("idem")
    return http.post("/v1/batches", json=request, headers=headers)


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    for name in ("mine/a.csv", "mine/sub/b.csv", "theirs/c.csv", "mixed/a.csv", "mixed/b.tsv"):
        path = tmp_path / "lake" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("id,text\n1,a\n")
    return tmp_path / "lake"


@pytest.fixture
def served(serve_with: Callable[..., Any], lake: Path) -> httpx.Client:
    service = serve_with(
        api_keys="acme:mine,other:theirs",
        dataset_uris=f"acme:{lake.as_uri()}/mine, other:{lake.as_uri()}/theirs/,"
        f"acme:{lake.as_uri()}/mixed,acme:{lake.as_uri()}/empty",
    )
    http: httpx.Client = service.http()
    return http


def test_a_snapshot_is_the_batchs_input_file(served: httpx.Client, lake: Path) -> None:
    uri = f"{lake.as_uri()}/mine"
    made = create(
        served, "mine", tidemill={"input_uri": uri, "template": "{{ text }}", "key": "id"}
    )
    assert made.status_code == 200, made.text
    batch = made.json()
    assert batch["tidemill"]["input_uri"] == [uri]
    headers = {"Authorization": "Bearer mine"}
    file_id = batch["input_file_id"]
    described = served.get(f"/v1/files/{file_id}", headers=headers).json()
    assert (described["purpose"], described["filename"]) == ("batch", "mine.snapshot.jsonl")
    assert described["expires_at"] - described["created_at"] == 30 * 86_400
    content = served.get(f"/v1/files/{file_id}/content", headers=headers).content
    header, first, second = map(orjson.loads, content.splitlines())
    assert (header["files"], header["input_uri"]) == (2, [uri])
    assert [first["uri"], second["uri"]] == [f"{uri}/a.csv", f"{uri}/sub/b.csv"]
    refused = served.delete(f"/v1/files/{file_id}", headers=headers)
    assert refused.json()["error"]["code"] == "file_in_use"


def test_a_create_that_is_repeated_takes_one_snapshot(served: httpx.Client, lake: Path) -> None:
    options = {"input_uri": [f"{lake.as_uri()}/mine/a.csv"], "template": "{{ text }}"}
    first = create(served, "mine", tidemill=options, idem="k").json()
    (lake / "mine" / "a.csv").unlink()
    assert create(served, "mine", tidemill=options, idem="k").json()["id"] == first["id"]
    files = served.get("/v1/files", headers={"Authorization": "Bearer mine"}).json()["data"]
    assert [file["id"] for file in files] == [first["input_file_id"]]
    for name, value in (("template", "{{ id }}"), ("key", "id"), ("input_format", "csv")):
        other = create(served, "mine", tidemill={**options, name: value}, idem="k")
        assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")


REFUSED = [
    ("/theirs", 403, "input_uri_not_allowed"),
    ("/theirs/c.csv", 403, "input_uri_not_allowed"),
    ("/*/c.csv", 403, "input_uri_not_allowed"),
    ("", 403, "input_uri_not_allowed"),
    ("/mine/../theirs/c.csv", 400, "invalid_input_uri"),
    ("/mine/%2e%2e/theirs/c.csv", 400, "invalid_input_uri"),
    ("/mine%2f..%2ftheirs", 400, "invalid_input_uri"),
    ("/mine/nothing", 400, "input_not_found"),
    ("/empty", 400, "input_not_found"),
    ("/mixed", 400, "input_kinds_differ"),
]


def test_what_a_tenant_may_not_read_is_refused(served: httpx.Client, lake: Path) -> None:
    (lake / "empty").mkdir()
    for path, status, code in REFUSED:
        refused = create(served, "mine", tidemill={"input_uri": lake.as_uri() + path})
        error = refused.json()["error"]
        assert (path, refused.status_code, error["code"]) == (path, status, code)
        assert error["param"] == "tidemill.input_uri"
    files = served.get("/v1/files", headers={"Authorization": "Bearer mine"}).json()["data"]
    assert files == []


def test_each_tenant_has_its_own_prefixes(served: httpx.Client, lake: Path) -> None:
    options = {"input_uri": f"{lake.as_uri()}/theirs"}
    assert create(served, "theirs", tidemill=options).status_code == 200


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "input_file_id", "missing_required_parameter"),
        ({"tidemill": {"template": "x"}}, "input_file_id", "missing_required_parameter"),
        (
            {"input_file_id": "file-1", "tidemill": {"input_uri": "s3://bucket/a"}},
            "tidemill.input_uri",
            "invalid_value",
        ),
        (
            {"tidemill": {"input_uri": "s3://bucket/a"}},
            "tidemill.input_uri",
            "input_uri_not_allowed",
        ),
        ({"tidemill": {"input_uri": []}}, "tidemill.input_uri", "invalid_value"),
        ({"tidemill": {"input_uri": 7}}, "tidemill.input_uri", "invalid_type"),
        ({"tidemill": {"input_uri": [""]}}, "tidemill.input_uri.0", "invalid_value"),
        ({"tidemill": {"input_uri": "bucket/a"}}, "tidemill.input_uri", "invalid_input_uri"),
        ({"tidemill": {"input_format": "xml"}}, "tidemill.input_format", "invalid_value"),
        ({"tidemill": {"key": ""}}, "tidemill.key", "invalid_value"),
        ({"tidemill": {"template": "{{ x"}}, "tidemill.template.prompt", "invalid_template"),
        ({"tidemill": {"template": 7}}, "tidemill.template", "invalid_template"),
        ({"tidemill": {"template": {"prompt": 2**70}}}, "tidemill.template", "invalid_value"),
        ({"tidemill": {"template": "x", "column": "y"}}, "tidemill.column", "invalid_value"),
        (
            {"tidemill": {"template": "x", "input_format": "requests"}},
            "tidemill.template",
            "invalid_value",
        ),
        (
            {"tidemill": {"template": [{"role": "user", "content": "x"}]}},
            "tidemill.template",
            "invalid_template",
        ),
    ],
)
def test_options_that_are_refused(
    http: httpx.Client, body: dict[str, Any], param: str, code: str
) -> None:
    error = create(http, **body).json()["error"]
    assert (error["param"], error["code"]) == (param, code)


def test_where_nothing_is_allowed_the_setting_is_named(http: httpx.Client) -> None:
    refused = create(http, tidemill={"input_uri": "s3://bucket/a"})
    assert refused.status_code == 403
    assert "TIDEMILL_DATASET_URIS=s3://bucket/prefix" in refused.json()["error"]["message"]
