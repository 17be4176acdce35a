"""SIGKILL in the middle of a job: after the restarts every line is there, exactly once."""

import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from openai import OpenAI
from openai.types import Batch

from integration.support import check_exactly_once, jsonl, request

pytestmark = pytest.mark.slow

LINES = 500
KILLS = 3


def test_three_kills_of_the_worker_lose_and_double_nothing(make_up: Callable[..., Any]) -> None:
    up = make_up(chunk_lines="50")
    ids = [f"line-{n}" for n in range(LINES)]
    content = jsonl([request(name, f"Say {name}.", max_tokens=4) for name in ids])
    file = up.client.files.create(file=("input.jsonl", content), purpose="batch")
    batch = up.client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    for kill in range(1, KILLS + 1):
        least = kill * LINES // 8
        _wait(up, batch.id, partial(_has_completed, least))
        assert up.client.batches.retrieve(batch.id).status == "in_progress"
        assert up.signal(signal.SIGKILL) == -signal.SIGKILL
        up.start()
    batch = _wait(up, batch.id, lambda b: b.status == "completed")
    check_exactly_once(up.client, batch, ids)
    assert _completed(batch) == LINES


def _completed(batch: Batch) -> int:
    return batch.request_counts.completed if batch.request_counts else 0


def _has_completed(least: int, batch: Batch) -> bool:
    return _completed(batch) >= least


def _wait(up: Any, batch_id: str, reached: Callable[[Batch], bool], timeout: float = 120) -> Batch:
    deadline = time.monotonic() + timeout
    client: OpenAI = up.client
    while not reached(batch := client.batches.retrieve(batch_id)):
        assert time.monotonic() < deadline, batch
        time.sleep(0.05)
    return batch
