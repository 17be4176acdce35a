"""A batch over a dataset in place, from the `openai` client, and its retry."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from storage.jobs.chunks import Counts


@pytest.fixture
def lake(tmp_path: Path) -> str:
    folder = tmp_path / "lake"
    folder.mkdir()
    (folder / "a.csv").write_text("id,prompt\n1,a\n")
    return folder.as_uri()


@pytest.fixture
def service(serve_with: Callable[..., Any], lake: str) -> Any:
    return serve_with(dataset_uris=lake)


def test_a_retry_reads_the_same_snapshot_as_long_as_that_is_allowed(
    service: Any, serve_with: Callable[..., Any], workers: Any, lake: str
) -> None:
    client = service.openai()
    made = client.batches.create(
        endpoint="/v1/chat/completions",
        completion_window="24h",
        input_file_id=openai.omit,
        extra_body={"tidemill": {"input_uri": f"{lake}/*.csv", "key": "id"}},
    )
    assert client.files.retrieve(made.input_file_id).filename == "_.csv.snapshot.jsonl"
    workers.plan(made.id)
    workers.commit(workers.claim(), Counts(3, 3))
    workers.commit(workers.claim(), Counts(4))
    workers.finalize(made.id, 7, 3)
    refused = serve_with(dataset_uris="s3://elsewhere").http().post(f"/v1/batches/{made.id}/retry")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "input_uri_not_allowed")
    again = service.http().post(f"/v1/batches/{made.id}/retry").json()
    assert again["input_file_id"] == made.input_file_id
    assert again["tidemill"]["input_uri"] == [f"{lake}/*.csv"]
