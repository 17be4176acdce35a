"""Batches whose results are written to a place of the caller's: what creating one checks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from smalldisk import small_disk

ENDPOINT = "/v1/completions"
ROWS = {"template": "{{ text }}", "key": "id"}


def create(http: httpx.Client, tidemill: dict[str, Any]) -> httpx.Response:
    request = {"endpoint": ENDPOINT, "completion_window": "24h", "tidemill": tidemill}
    return http.post("/v1/batches", json=request, headers={"Authorization": "Bearer mine"})


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    for name in ("in/a.csv", "mine/full/x", "theirs/c"):
        path = tmp_path / "lake" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("id,text\n1,a\n")
    (tmp_path / "lake" / "mine" / "away").symlink_to(tmp_path)
    return tmp_path / "lake"


@pytest.fixture
def served(serve_with: Callable[..., Any], lake: Path) -> httpx.Client:
    service = serve_with(
        api_keys="acme:mine,other:theirs",
        dataset_uris=f"acme:{lake.as_uri()}/in",
        output_uris=f"acme:{lake.as_uri()}/mine, other:{lake.as_uri()}/theirs, acme:file:///proc/x",
    )
    http: httpx.Client = service.http()
    return http


def output(http: httpx.Client, lake: Path, uri: str, **options: Any) -> httpx.Response:
    said = {**ROWS, "input_uri": f"{lake.as_uri()}/in", "output_uri": uri, **options}
    return create(http, said)


def test_a_batch_says_where_its_results_are_written(served: httpx.Client, lake: Path) -> None:
    uri = f"{lake.as_uri()}/mine/new/folder/"
    made = output(served, lake, uri, passthrough=["text"], format="jsonl")
    assert made.status_code == 200, made.text
    assert made.json()["tidemill"]["output"] == {
        "uri": uri,
        "format": "jsonl",
        "shards_written": 0,
        "shards_total": None,
        "rows_written": 0,
        "problem": None,
    }
    assert list((lake / "mine" / "new" / "folder").iterdir()) == [], "the probe is gone"
    again = output(served, lake, uri.rstrip("/").replace("new", "%6eew"))
    assert (again.status_code, again.json()["error"]["code"]) == (409, "output_in_use")


def test_an_estimate_checks_the_place_and_leaves_it_to_the_batch(
    served: httpx.Client, lake: Path
) -> None:
    uri = f"{lake.as_uri()}/mine/later/"
    expected = output(served, lake, uri, estimate=True)
    assert expected.json()["tidemill"].get("output") is None
    assert output(served, lake, f"{lake.as_uri()}/mine/full", estimate=True).status_code == 400
    assert output(served, lake, uri).status_code == 200


REFUSED = {
    "{lake}/theirs/x": (403, "output_uri_not_allowed"),
    "{lake}/in/": (403, "output_uri_not_allowed"),
    "{lake}/mine2": (403, "output_uri_not_allowed"),
    "{lake}/mine/away/out": (403, "output_uri_not_allowed"),
    "s3://bucket/x": (403, "output_uri_not_allowed"),
    "{lake}/mine/../theirs": (400, "invalid_output"),
    "{lake}/mine/%2e%2e/theirs": (400, "invalid_output"),
    "{lake}/mine/a%2fb": (400, "invalid_output"),
    "{lake}/mine/*": (400, "invalid_output"),
    "{lake}/mine//x": (400, "invalid_output"),
    "s3://key:secret@bucket/x": (400, "invalid_output"),
    "s3://bucket": (400, "invalid_output"),
    "mine": (400, "invalid_output"),
    "{lake}/mine/full": (400, "output_not_empty"),
    "{lake}/mine/full/x": (400, "output_not_writable"),
    "file:///proc/x/y": (400, "output_not_writable"),
}


def test_a_place_that_cannot_be_taken_is_refused_before_the_batch_is_there(
    served: httpx.Client, lake: Path
) -> None:
    found = {}
    for uri in REFUSED:
        refused = output(served, lake, uri.replace("{lake}", lake.as_uri()))
        error = refused.json()["error"]
        found[uri] = refused.status_code, error["code"]
        assert error["param"] == "tidemill.output_uri"
        assert "secret" not in refused.text
    assert found == REFUSED
    headers = {"Authorization": "Bearer mine"}
    assert served.get("/v1/batches", headers=headers).json()["data"] == []
    assert served.get("/v1/files", headers=headers).json()["data"] == []


def test_options_of_an_output_need_one(served: httpx.Client, lake: Path) -> None:
    for name, value in (("format", "jsonl"), ("passthrough", "all")):
        said = {**ROWS, "input_uri": f"{lake.as_uri()}/in", name: value}
        refused = create(served, said)
        param = refused.json()["error"]["param"]
        assert (refused.status_code, param) == (400, f"tidemill.{name}")


def test_a_full_disk_is_refused_at_once(served: httpx.Client, lake: Path) -> None:
    with small_disk(lake / "mine" / "disk", 64 * 1024) as disk:
        disk.fill()
        refused = output(served, lake, (disk.path / "out").as_uri())
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "output_not_writable")
