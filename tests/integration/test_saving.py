"""What a plan expects to save is what the run saves, with the real engine."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from integration.support import check_exactly_once, jsonl, request
from integration.test_openai_client import create, wait

pytestmark = pytest.mark.slow

TOPICS = ("rivers and ships", "the price of grain", "the weather at sea", "old coins")
SYSTEM = (
    "You answer questions about {}. Be brief and exact, name your sources, and say so where you do "
    "not know. Never answer a question about anything else; say what you are for instead. " * 3
)


def test_the_expected_saving_is_the_measured_one(make_up: Callable[..., Any]) -> None:
    client = make_up().client
    lines = [
        request(
            f"q{topic}-{number}",
            "",
            messages=[
                {"role": "system", "content": SYSTEM.format(*[TOPICS[topic]] * 3)},
                {"role": "user", "content": f"Question number {number}: what is it worth?"},
            ],
            max_tokens=4,
        )
        for topic in range(4)
        for number in range(12)
    ]
    lines += [{**line, "custom_id": f"again-{line['custom_id']}"} for line in lines[:9]]
    Random(7).shuffle(lines)
    batch = create(client, jsonl(lines))
    batch = wait(client, batch.id, "completed")
    check_exactly_once(client, batch, [line["custom_id"] for line in lines])
    assert batch.model_extra is not None
    plan = batch.model_extra["tidemill"]["plan"]
    assert batch.usage is not None
    assert plan["prompt_tokens"] == batch.usage.input_tokens
    assert plan["duplicate_lines"] == 9
    measured = batch.usage.input_tokens_details.cached_tokens
    assert plan["expected_cached_tokens"] > 0.75 * plan["prompt_tokens"]
    assert measured == plan["expected_cached_tokens"]
