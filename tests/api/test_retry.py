"""Failed lines run again, and the wake-ups sent for what a client asks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage.jobs.chunks import Counts
from storage.wakeups import Wakeup


@pytest.fixture
def service(serve_with: Callable[..., Any]) -> Any:
    return serve_with()


@pytest.fixture
def client(service: Any) -> Any:
    return service.openai()


@pytest.fixture
def http(service: Any) -> Any:
    return service.http()


def ended(workers: Any, client: Any, *, n_errors: int = 3, **more: Any) -> str:
    """The id of a batch that has ended with so many error lines."""
    job_id: str = workers.create(client, **more)
    workers.plan(job_id)
    workers.commit(workers.claim(), Counts(6 - n_errors, n_errors))
    workers.commit(workers.claim(), Counts(4))
    workers.finalize(job_id, 10 - n_errors, n_errors)
    return job_id


def test_the_failed_lines_as_a_new_batch(workers: Any, client: Any, http: Any) -> None:
    options = {"on_invalid": "skip", "priority": 7}
    first = ended(workers, client, metadata={"job": "nightly"}, extra_body={"tidemill": options})
    answer = http.post(f"/v1/batches/{first}/retry")
    assert answer.status_code == 200
    made, before = answer.json(), client.batches.retrieve(first)
    assert made["id"] != first
    assert made["status"] == "validating"
    assert made["tidemill"]["retry_of"] == first
    assert before.tidemill["retry_of"] is None
    for name in ("input_file_id", "endpoint", "completion_window", "metadata"):
        assert made[name] == getattr(before, name)
    assert made["tidemill"]["priority"] == 7
    assert made["tidemill"]["on_invalid"] == "skip"
    assert made["expires_at"] - made["created_at"] == 86_400
    assert client.batches.list().data[0].id == made["id"]


def test_a_retry_of_its_own_terms(workers: Any, client: Any, http: Any) -> None:
    first = ended(workers, client, metadata={"job": "nightly"})
    body = {"completion_window": "2h", "metadata": None, "tidemill": {"priority": -3}}
    made = http.post(f"/v1/batches/{first}/retry", json=body).json()
    assert (made["completion_window"], made["metadata"]) == ("2h", None)
    assert made["expires_at"] - made["created_at"] == 7200
    assert made["tidemill"]["priority"] == -3
    for wrong, param in (
        ({"completion_window": "2"}, "completion_window"),
        ({"tidemill": {"priority": 101}}, "tidemill.priority"),
        ({"input_file_id": "file-1"}, "input_file_id"),
    ):
        refused = http.post(f"/v1/batches/{first}/retry", json=wrong)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


def test_a_retry_writes_to_no_place_of_the_first_one(
    workers: Any, serve_with: Callable[..., Any], tmp_path: Path
) -> None:
    lake = (tmp_path / "lake").as_uri()
    service = serve_with(output_uris=lake)
    options = {"output_uri": f"{lake}/out/"}
    first = ended(workers, service.openai(), extra_body={"tidemill": options})
    http = service.http()
    assert http.get(f"/v1/batches/{first}").json()["tidemill"]["output"]["uri"].endswith("/out/")
    made = http.post(f"/v1/batches/{first}/retry")
    assert (made.status_code, made.json()["tidemill"]["output"]) == (200, None)


def test_a_retry_sent_twice_is_one_batch(workers: Any, client: Any, http: Any) -> None:
    first, other = ended(workers, client), ended(workers, client)
    key = {"Idempotency-Key": "again"}
    made = http.post(f"/v1/batches/{first}/retry", headers=key).json()
    workers.plan(made["id"])
    client.files.delete(client.batches.retrieve(first).error_file_id)
    assert http.post(f"/v1/batches/{first}/retry", headers=key, json={}).json()["id"] == made["id"]
    for different in (
        http.post(f"/v1/batches/{other}/retry", headers=key),
        http.post(f"/v1/batches/{first}/retry", headers=key, json={"completion_window": "1h"}),
        http.post(f"/v1/batches/{first}/retry", headers=key, json={"metadata": None}),
    ):
        assert different.status_code == 409
        assert different.json()["error"]["code"] == "idempotency_key_reused"


def test_what_cannot_be_retried(workers: Any, client: Any, http: Any) -> None:
    def refusal(job_id: str) -> tuple[int, str]:
        refused = http.post(f"/v1/batches/{job_id}/retry")
        return refused.status_code, refused.json()["error"]["code"]

    running = workers.create(client)
    assert refusal(running) == (400, "batch_not_retryable")
    workers.plan(running)
    assert refusal(running) == (400, "batch_not_retryable")
    for lines in (6, 4):
        workers.commit(workers.claim(), Counts(lines))
    workers.finalize(running, 10, 0)
    assert refusal(running) == (400, "nothing_to_retry")
    for gone in ("error_file_id", "input_file_id"):
        job_id = ended(workers, client)
        client.files.delete(getattr(client.batches.retrieve(job_id), gone))
        assert refusal(job_id) == (400, "retry_source_gone")


def test_what_a_retry_has_still_to_read_stays(workers: Any, client: Any, http: Any) -> None:
    first = ended(workers, client)
    made = http.post(f"/v1/batches/{first}/retry").json()
    before = client.batches.retrieve(first)
    for file_id in (before.error_file_id, before.input_file_id):
        refused = http.delete(f"/v1/files/{file_id}")
        assert refused.json()["error"]["code"] == "file_in_use"
    workers.plan(made["id"])
    for file_id in (before.error_file_id, before.input_file_id):
        assert client.files.delete(file_id).deleted


def test_what_is_asked_for_rings_at_once(workers: Any, client: Any, http: Any) -> None:
    first = ended(workers, client)
    sent = workers.service.sent_wakeups()
    job_id = workers.create(client)
    while sent.get(timeout=10) != Wakeup.plan(job_id):
        pass  # wake-ups of earlier batches
    retried = http.post(f"/v1/batches/{first}/retry").json()["id"]
    assert sent.get(timeout=10) == Wakeup.plan(retried)
    http.post(f"/v1/batches/{job_id}/pause")
    for what in ("resume", "cancel"):
        assert http.post(f"/v1/batches/{job_id}/{what}").status_code == 200
        assert sent.get(timeout=10) == Wakeup.reconcile()
