"""Files, through the `openai` client and plain HTTP, against a running service."""

import io
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from storage.objects import object_keys
from storage.settings import DEFAULT_TENANT

DAY = 86_400


def upload(client: OpenAI, data: bytes = b'{"a": 1}\n', name: str = "in.jsonl", **more: Any) -> Any:
    return client.files.create(file=(name, data), **{"purpose": "batch", **more})


def stored(service: Any) -> set[str]:
    return {info.key for info in service.store.list(f"files/{DEFAULT_TENANT}/")}


def test_upload_read_download_delete(client: OpenAI, service: Any) -> None:
    data = bytes(range(256)) * 1000
    made = upload(client, data, "größe \U0001f600.jsonl")
    assert (made.object, made.bytes, made.purpose) == ("file", len(data), "batch")
    assert (made.filename, made.status) == ("größe \U0001f600.jsonl", "processed")
    assert made.expires_at == made.created_at + 30 * DAY

    assert client.files.retrieve(made.id) == made
    assert client.files.content(made.id).read() == data
    with client.files.with_streaming_response.content(made.id) as streamed:
        assert b"".join(streamed.iter_bytes()) == data

    gone = client.files.delete(made.id)
    assert (gone.id, gone.object, gone.deleted) == (made.id, "file", True)
    assert object_keys.upload(DEFAULT_TENANT, made.id) not in stored(service)
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError) as caught:
            call(made.id)
        assert caught.value.body == {
            "message": f"No such File object: {made.id}",
            "type": "invalid_request_error",
            "param": "id",
            "code": None,
        }


def test_every_key_is_there(client: OpenAI, http: httpx.Client) -> None:
    made = upload(client, purpose="evals")
    assert http.get(f"/v1/files/{made.id}").json() == {
        "id": made.id,
        "object": "file",
        "bytes": 9,
        "created_at": made.created_at,
        "filename": "in.jsonl",
        "purpose": "evals",
        "status": "processed",
        "expires_at": None,
        "status_details": None,
    }


def test_expiry_as_asked(client: OpenAI) -> None:
    made = upload(client, expires_after={"anchor": "created_at", "seconds": 3600})
    assert made.expires_at == made.created_at + 3600


def test_an_empty_file_is_accepted(client: OpenAI) -> None:
    made = upload(client, b"")
    assert made.bytes == 0
    assert client.files.content(made.id).read() == b""


@pytest.mark.parametrize(
    ("name", "kept"),
    [("../../etc/passwd", "passwd"), ("C:\\x\\in.jsonl", "in.jsonl"), ('a"b.jsonl', "a%22b.jsonl")],
)
def test_a_filename_is_only_a_name(client: OpenAI, name: str, kept: str) -> None:
    assert upload(client, name=name).filename == kept


@pytest.mark.parametrize("seconds", [3599, 2_592_001])
def test_expiry_out_of_range(client: OpenAI, seconds: int) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        upload(client, expires_after={"anchor": "created_at", "seconds": seconds})
    assert caught.value.param == "expires_after.seconds"


def test_an_unknown_purpose(client: OpenAI, service: Any) -> None:
    before = stored(service)
    with pytest.raises(openai.BadRequestError) as caught:
        upload(client, purpose="batch_output")
    assert caught.value.param == "purpose"
    assert stored(service) == before


def form(http: httpx.Client, **parts: Any) -> httpx.Response:
    return http.post("/v1/files", files=parts)


def test_the_purpose_may_follow_the_file(http: httpx.Client) -> None:
    made = form(http, file=("in.jsonl", b"data"), purpose=(None, "batch"))
    assert made.status_code == 200
    assert http.get(f"/v1/files/{made.json()['id']}/content").content == b"data"


@pytest.mark.parametrize(
    ("parts", "param"),
    [
        ({"file": ("a", b"x")}, "purpose"),
        ({"purpose": (None, "batch")}, "file"),
        ({"file": ("a", b"x"), "purpose": (None, "nonsense")}, "purpose"),
        ({"file": ("a", b"x"), "purpose": (None, "batch"), "expires_after": (None, "x")}, None),
    ],
)
def test_an_incomplete_form_leaves_nothing(
    http: httpx.Client, service: Any, parts: dict[str, Any], param: str | None
) -> None:
    before = stored(service)
    refused = form(http, **parts)
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == (param or "expires_after")
    assert stored(service) == before
    assert not list((service.settings.storage.home / "objects" / ".staging").iterdir())


def test_two_files_in_a_form(http: httpx.Client) -> None:
    parts = [("file", ("a", b"x")), ("file", ("b", b"y")), ("purpose", (None, b"batch"))]
    refused = http.post("/v1/files", files=parts)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "file")


def test_fields_that_never_end(http: httpx.Client) -> None:
    assert form(http, purpose=(None, "x" * 100_000)).status_code == 413


def test_a_body_that_is_no_form(http: httpx.Client) -> None:
    for refused in (
        http.post("/v1/files", json={"purpose": "batch"}),
        http.post("/v1/files"),
        http.post(
            "/v1/files",
            content=b"junk",
            headers={"content-type": "multipart/form-data; boundary=x"},
        ),
    ):
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == "invalid_multipart"


def test_a_file_above_the_cap(serve_with: Callable[..., Any]) -> None:
    service = serve_with(max_file_bytes=3_000_000)
    client = service.openai()
    assert upload(client, b"x" * 3_000_000).bytes == 3_000_000
    with pytest.raises(openai.APIStatusError) as caught:
        upload(client, b"x" * 3_000_001)
    assert (caught.value.status_code, caught.value.code) == (413, "file_too_large")
    assert len(stored(service)) == 1
    assert not list((service.settings.storage.home / "objects" / ".staging").iterdir())


@pytest.mark.parametrize(
    ("asked", "status", "slice_", "content_range"),
    [
        ("bytes=0-9", 206, slice(0, 10), "bytes 0-9/2000000"),
        ("bytes=1999990-", 206, slice(1_999_990, None), "bytes 1999990-1999999/2000000"),
        ("bytes=-5", 206, slice(-5, None), "bytes 1999995-1999999/2000000"),
        ("bytes=100-1500099", 206, slice(100, 1_500_100), "bytes 100-1500099/2000000"),
        ("bytes=0-1,5-6", 200, slice(None), None),
    ],
)
def test_ranges(
    client: OpenAI,
    http: httpx.Client,
    asked: str,
    status: int,
    slice_: slice,
    content_range: str | None,
) -> None:
    data = b"0123456789" * 200_000
    made = upload(client, data)
    answer = http.get(f"/v1/files/{made.id}/content", headers={"range": asked})
    assert answer.status_code == status
    assert answer.content == data[slice_]
    assert answer.headers.get("content-range") == content_range
    assert answer.headers["content-length"] == str(len(data[slice_]))


def test_a_range_outside_and_a_stale_one(client: OpenAI, http: httpx.Client) -> None:
    path = f"/v1/files/{upload(client, b'0123456789').id}/content"
    outside = http.get(path, headers={"range": "bytes=10-"})
    assert (outside.status_code, outside.headers["content-range"]) == (416, "bytes */10")
    assert outside.json()["error"]["code"] == "range_not_satisfiable"

    etag = http.get(path).headers["etag"]
    current = http.get(path, headers={"range": "bytes=0-1", "if-range": etag})
    stale = http.get(path, headers={"range": "bytes=0-1", "if-range": '"other"'})
    assert (current.status_code, current.content) == (206, b"01")
    assert (stale.status_code, stale.content) == (200, b"0123456789")


def test_lists_page_by_page(serve_with: Callable[..., Any]) -> None:
    service = serve_with()
    client = service.openai()
    assert client.files.list().data == []
    made = [upload(client, name=f"{n}", purpose="batch" if n % 2 else "evals") for n in range(7)]
    newest_first = [file.id for file in reversed(made)]
    page = client.files.list(limit=3)
    assert [file.id for file in page.data] == newest_first[:3]
    assert page.has_more is True
    assert [file.id for file in page] == newest_first  # walks every page
    assert [file.id for file in client.files.list(order="asc", limit=2)] == newest_first[::-1]
    assert [file.filename for file in client.files.list(purpose="evals", limit=2)] == [
        "6",
        "4",
        "2",
        "0",
    ]
    after = client.files.list(after=newest_first[4], limit=5)
    assert [file.id for file in after.data] == newest_first[5:]
    assert after.has_more is False


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=10001", "limit"),
        ("limit=many", "limit"),
        ("order=up", "order"),
        ("after=file-unknown", "after"),
        ("after=%00", "after"),
        ("purpose=%00", "purpose"),
    ],
)
def test_lists_refuse_what_they_do_not_know(http: httpx.Client, query: str, param: str) -> None:
    refused = http.get(f"/v1/files?{query}")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


def test_a_file_object_from_disk(client: OpenAI, tmp_path: Any) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(b"{}\n")
    with path.open("rb") as stream:
        assert client.files.create(file=stream, purpose="batch").filename == "prompts.jsonl"
    assert client.files.create(file=io.BytesIO(b"raw"), purpose="batch").bytes == 3


def test_content_that_is_gone_from_the_store(client: OpenAI, service: Any) -> None:
    made = upload(client)
    service.store.delete(object_keys.upload(DEFAULT_TENANT, made.id))
    with pytest.raises(openai.NotFoundError) as caught:
        client.files.content(made.id)
    assert caught.value.code == "object_not_found"
