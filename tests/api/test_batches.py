"""Batches, through the `openai` client, up to where the workers take over."""

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import Empty
from typing import Any

import httpx
import openai
import orjson
import pytest
from openai import OpenAI

from api.schemas.batch_create import BatchCreate, BatchOptions, fingerprint
from storage.jobs import jobs, planning
from storage.wakeups import Wakeup

LINE = b'{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {}}\n'


def create(client: OpenAI, input_file_id: str, **more: Any) -> Any:
    request: dict[str, Any] = {
        "input_file_id": input_file_id,
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        **more,
    }
    return client.batches.create(**request)


def test_a_fresh_batch(client: OpenAI, http: httpx.Client, input_id: str) -> None:
    made = create(client, input_id, metadata={"job": "nightly"})
    raw = http.get(f"/v1/batches/{made.id}").json()
    extension = raw.pop("tidemill")
    assert raw == {
        "id": made.id,
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "model": None,
        "errors": None,
        "input_file_id": input_id,
        "completion_window": "24h",
        "status": "validating",
        "output_file_id": None,
        "error_file_id": None,
        "created_at": made.created_at,
        "in_progress_at": None,
        "expires_at": made.created_at + 86_400,
        "finalizing_at": None,
        "completed_at": None,
        "failed_at": None,
        "expired_at": None,
        "cancelling_at": None,
        "cancelled_at": None,
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "usage": None,
        "metadata": {"job": "nightly"},
    }
    assert abs(made.created_at - time.time()) < 60
    assert extension["progress"]["lines_done"] == 0
    assert extension["progress"]["tokens_per_second"] is None
    assert extension["progress"]["seconds_left"] is None
    assert (extension["on_invalid"], extension["priority"]) == ("fail", 0)
    assert client.batches.retrieve(made.id).id == made.id


@pytest.mark.parametrize(("window", "seconds"), [("1h", 3600), ("7d", 604_800)])
def test_other_windows(client: OpenAI, input_id: str, window: str, seconds: int) -> None:
    made = create(client, input_id, completion_window=window)
    assert made.expires_at - made.created_at == seconds


def test_our_options_and_theirs(client: OpenAI, service: Any, input_id: str) -> None:
    made = create(
        client,
        input_id,
        output_expires_after={"anchor": "created_at", "seconds": 7200},
        extra_body={"tidemill": {"on_invalid": "skip", "priority": 7}},
    )
    job = jobs.get(service.database, "default", made.id)
    assert (job.options["on_invalid"], job.priority) == ("skip", 7)
    assert job.output_expires_seconds == 7200


def test_metadata_at_its_limits(client: OpenAI, input_id: str) -> None:
    metadata = {f"{n:064d}": "v" * 512 for n in range(16)}
    assert create(client, input_id, metadata=metadata).metadata == metadata
    assert create(client, input_id, metadata=None).metadata is None


def test_an_input_of_another_purpose_or_deleted(client: OpenAI) -> None:
    other = client.files.create(file=("a", b"x"), purpose="user_data")
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, other.id)
    assert (caught.value.param, caught.value.code) == ("input_file_id", "invalid_purpose")
    gone = client.files.create(file=("a", LINE), purpose="batch")
    client.files.delete(gone.id)
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, gone.id)
    assert caught.value.code == "file_not_found"


def test_the_same_key_gives_the_same_batch(client: OpenAI, input_id: str) -> None:
    headers = {"Idempotency-Key": "once"}
    first = create(client, input_id, extra_headers=headers)
    assert create(client, input_id, extra_headers=headers).id == first.id
    # A default that is spelled out is the same request.
    spelled = {"tidemill": {"on_invalid": "fail"}}
    assert create(client, input_id, extra_headers=headers, extra_body=spelled).id == first.id
    with pytest.raises(openai.ConflictError) as caught:
        create(client, input_id, extra_headers=headers, metadata={"other": "request"})
    assert caught.value.code == "idempotency_key_reused"
    assert create(client, input_id, extra_headers={"Idempotency-Key": "twice"}).id != first.id


def test_the_same_key_gives_the_same_batch_after_its_input_is_gone(
    serve_with: Callable[..., Any],
) -> None:
    service = serve_with()
    client = service.openai()
    input_id = client.files.create(file=("in.jsonl", LINE), purpose="batch").id
    headers = {"Idempotency-Key": "once"}
    first = create(client, input_id, extra_headers=headers)
    fail(service, first.id)
    client.files.delete(input_id)
    again = create(client, input_id, extra_headers=headers)
    assert (again.id, again.status) == (first.id, "failed")
    with pytest.raises(openai.ConflictError):
        create(client, input_id, extra_headers=headers, metadata={"other": "request"})
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, input_id, extra_headers={"Idempotency-Key": "another"})
    assert caught.value.code == "file_not_found"


def test_one_key_from_many_callers_at_once(client: OpenAI, input_id: str) -> None:
    def call(_: int) -> str:
        return str(create(client, input_id, extra_headers={"Idempotency-Key": "race"}).id)

    with ThreadPoolExecutor(12) as pool:
        assert len(set(pool.map(call, range(24)))) == 1


def test_a_key_that_is_too_long(client: OpenAI, input_id: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, input_id, extra_headers={"Idempotency-Key": "k" * 256})
    assert caught.value.param == "idempotency-key"
    assert create(client, input_id, extra_headers={"Idempotency-Key": "k" * 255}).id


def test_workers_are_told_once_a_batch(serve_with: Callable[..., Any]) -> None:
    service = serve_with()
    client = service.openai()
    sent = service.sent_wakeups()
    input_id = client.files.create(file=("in.jsonl", LINE), purpose="batch").id
    made = create(client, input_id, extra_headers={"Idempotency-Key": "told"})
    assert sent.get(timeout=10) == Wakeup.plan(made.id)
    create(client, input_id, extra_headers={"Idempotency-Key": "told"})
    with pytest.raises(Empty):
        sent.get(timeout=0.3)


def test_a_broker_that_is_down_loses_no_batch(serve_with: Callable[..., Any]) -> None:
    service = serve_with(broker_url="redis://127.0.0.1:1/0")
    client = service.openai()
    input_id = client.files.create(file=("in.jsonl", LINE), purpose="batch").id
    started = time.monotonic()
    made = create(client, input_id)
    assert time.monotonic() - started < 5
    assert client.batches.retrieve(made.id).status == "validating"


def test_cancelling(client: OpenAI, service: Any, input_id: str) -> None:
    made = create(client, input_id)
    stopped = client.batches.cancel(made.id)
    assert stopped.status == "cancelling"
    assert stopped.cancelling_at is not None
    again = client.batches.cancel(made.id)
    assert (again.status, again.cancelling_at) == ("cancelling", stopped.cancelling_at)


def test_a_batch_that_has_failed_cannot_be_cancelled(serve_with: Callable[..., Any]) -> None:
    service = serve_with()
    client = service.openai()
    input_id = client.files.create(file=("in.jsonl", b""), purpose="batch").id
    made = create(client, input_id)
    fail(service, made.id)
    failed = client.batches.retrieve(made.id)
    assert failed.status == "failed"
    assert failed.errors.object == "list"
    assert failed.errors.data[0].model_dump() == {
        "code": "empty_file",
        "line": None,
        "message": "The file is empty.",
        "param": None,
    }
    with pytest.raises(openai.BadRequestError) as caught:
        client.batches.cancel(made.id)
    assert "'failed'" in caught.value.message


def fail(service: Any, job_id: str) -> None:
    job = planning.claim_plan(service.database, "test", lease_seconds=45, job_id=job_id)
    assert job is not None
    refusal = planning.Refusal(
        errors=[{"code": "empty_file", "message": "The file is empty.", "param": None}]
    )
    planning.fail_job(service.database, job_id, job.plan_epoch, refusal)


@pytest.mark.parametrize("batch_id", ["batch_unknown", "batch%00", "x" * 500])
def test_an_unknown_batch(http: httpx.Client, batch_id: str) -> None:
    for refused in (
        http.get(f"/v1/batches/{batch_id}"),
        http.post(f"/v1/batches/{batch_id}/cancel"),
        http.post(f"/v1/batches/{batch_id}/pause"),
        http.post(f"/v1/batches/{batch_id}/resume"),
        http.post(f"/v1/batches/{batch_id}/retry"),
    ):
        assert refused.status_code == 404
        assert refused.json()["error"]["type"] == "invalid_request_error"


def test_lists_page_by_page(serve_with: Callable[..., Any]) -> None:
    service = serve_with()
    client = service.openai()
    assert client.batches.list().data == []
    input_id = client.files.create(file=("in.jsonl", LINE), purpose="batch").id
    newest_first = [create(client, input_id).id for _ in range(25)][::-1]
    page = client.batches.list()
    assert [batch.id for batch in page.data] == newest_first[:20]
    assert page.has_more is True
    assert [batch.id for batch in client.batches.list(limit=4)] == newest_first
    last = client.batches.list(after=newest_first[20], limit=4)
    assert [batch.id for batch in last.data] == newest_first[21:]
    assert last.has_more is False
    for wrong in ({"limit": 101}, {"limit": 0}, {"after": "batch_unknown"}):
        with pytest.raises(openai.BadRequestError) as caught:
            client.batches.list(**wrong)
        assert caught.value.param == next(iter(wrong))


def test_the_input_of_a_batch_that_validates_stays(serve_with: Callable[..., Any]) -> None:
    service = serve_with()
    client = service.openai()
    input_id = client.files.create(file=("in.jsonl", LINE), purpose="batch").id
    made = create(client, input_id)
    with pytest.raises(openai.ConflictError) as caught:
        client.files.delete(input_id)
    assert caught.value.code == "file_in_use"
    fail(service, made.id)
    assert client.files.delete(input_id).deleted


def test_a_request_is_the_same_one_to_a_version_that_knew_no_estimates() -> None:
    plain = BatchCreate(input_file_id="f", endpoint="/v1/completions", completion_window="24h")
    known = plain.model_dump() | {"tidemill": {"on_invalid": "fail", "priority": 0}}
    canonical = orjson.dumps(known, option=orjson.OPT_SORT_KEYS)
    assert fingerprint(plain) == hashlib.sha256(canonical).hexdigest()
    asked = plain.model_copy(update={"tidemill": BatchOptions(estimate=True)})
    assert fingerprint(asked) != fingerprint(plain)


def test_an_estimate_is_asked_for_and_a_sample_must_have_answers(
    client: OpenAI, service: Any, input_id: str
) -> None:
    made = create(client, input_id, extra_body={"tidemill": {"estimate": True}})
    assert jobs.get(service.database, "default", made.id).only_estimated
    plain = create(client, input_id)
    assert not jobs.get(service.database, "default", plain.id).only_estimated
    with pytest.raises(
        openai.BadRequestError, match="has no answers to learn from; it is validating"
    ):
        create(client, input_id, extra_body={"tidemill": {"estimate": True, "sample": plain.id}})
