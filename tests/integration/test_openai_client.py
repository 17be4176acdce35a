"""The official client, as its documentation uses it, with only ``base_url`` set."""

import time
from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types import Batch
from openai.types.chat import ChatCompletion

from integration.support import check_exactly_once, download, jsonl, request

pytestmark = pytest.mark.slow


def create(client: OpenAI, content: bytes, **options: Any) -> Batch:
    file = client.files.create(file=("input.jsonl", content), purpose="batch")
    return client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        **options,
    )


def wait(client: OpenAI, batch_id: str, *statuses: str, timeout: float = 180) -> Batch:
    deadline = time.monotonic() + timeout
    while True:
        batch = client.batches.retrieve(batch_id)
        if batch.status in statuses:
            return batch
        assert batch.status not in ("failed", "completed", "expired", "cancelled"), batch
        assert time.monotonic() < deadline, batch
        time.sleep(0.2)


def test_a_batch_from_upload_to_download(make_up: Callable[..., Any]) -> None:
    client = make_up().client
    questions = ["What is the capital of France?"] + [f"Name {n} fruits." for n in range(2, 12)]
    lines = [request(f"q{n}", text, max_tokens=24) for n, text in enumerate(questions)]
    batch = create(client, jsonl(lines), metadata={"project": "test"})
    assert batch.status == "validating"
    assert batch.metadata == {"project": "test"}
    batch = wait(client, batch.id, "completed")
    check_exactly_once(client, batch, [f"q{n}" for n in range(len(lines))])
    answers = [
        ChatCompletion.model_validate(line["response"]["body"])
        for line in download(client, batch.output_file_id)
    ]
    assert answers[0].choices[0].message.content == "The capital of France is Paris."
    assert answers[0].choices[0].finish_reason == "stop"
    usages = [answer.usage for answer in answers if answer.usage]
    assert batch.usage is not None
    assert batch.usage.output_tokens == sum(usage.completion_tokens for usage in usages)
    assert batch.usage.input_tokens == sum(usage.prompt_tokens for usage in usages)
    assert batch.error_file_id is None
    assert batch.in_progress_at
    assert batch.completed_at

    # Listing turns pages by itself, newest first.
    others = [create(client, jsonl(lines[:1])).id for _ in range(4)]
    listed = [found.id for found in client.batches.list(limit=2)]
    assert listed == [*reversed(others), batch.id]
    files = [file.purpose for file in client.files.list(limit=3)]
    assert files.count("batch") == 5
    assert {"smollm2"} == {model.id for model in client.models.list()}

    with pytest.raises(openai.BadRequestError) as caught:
        client.batches.cancel(batch.id)
    assert caught.value.body


def test_a_cancelled_batch_keeps_what_is_done(make_up: Callable[..., Any]) -> None:
    # Small chunks: some are done, some run, some wait when the cancellation comes.
    client = make_up(chunk_lines="4", max_num_seqs="4").client
    ids = [f"c{n}" for n in range(60)]
    lines = [
        request(name, f"Write about the number {n}.", max_tokens=4 if n < 8 else 400)
        for n, name in enumerate(ids)
    ]
    batch = create(client, jsonl(lines))
    deadline = time.monotonic() + 120
    while not (found := client.batches.retrieve(batch.id).request_counts) or not found.completed:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    began = time.monotonic()
    assert client.batches.cancel(batch.id).status == "cancelling"
    batch = wait(client, batch.id, "cancelled", timeout=60)
    assert time.monotonic() - began < 30
    check_exactly_once(client, batch, ids)
    errors = download(client, batch.error_file_id)
    assert {line["error"]["code"] for line in errors} == {"batch_cancelled"}
    assert all(line["response"] is None for line in errors)
    assert batch.request_counts is not None
    assert batch.request_counts.completed > 0
    assert batch.usage is not None
    assert batch.usage.output_tokens > 0
    assert client.batches.cancel(batch.id).status == "cancelled"


def test_a_file_with_bad_lines_fails_and_names_every_one(make_up: Callable[..., Any]) -> None:
    client = make_up().client
    good = jsonl([request("a", "x")])
    bad = b'{"custom_id": "b", "method": "POST"\n' * 3 + good * 2
    batch = wait(client, create(client, good + bad).id, "failed")
    assert batch.errors is not None
    found = [(error.line, error.code) for error in batch.errors.data or []]
    assert found == [
        (2, "invalid_json_line"),
        (3, "invalid_json_line"),
        (4, "invalid_json_line"),
        (5, "duplicate_custom_id"),
        (6, "duplicate_custom_id"),
    ]
    assert batch.output_file_id is None
    assert batch.error_file_id is None
