"""Inputs for jobs of the tiny model, made from a seed."""

import random
from dataclasses import dataclass
from typing import Any

import orjson

from integration.harness import tiny

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
SHARED_WORDS = 12  # the beginning that all prompts of a job have in common
OWN_WORDS = 3
BAD_SHARE = 0.01
DUPLICATE_SHARE = 0.03


@dataclass(frozen=True, slots=True)
class Order:
    """One job's input, and the error that each of its bad lines must end with."""

    endpoint: str
    content: bytes
    refusals: dict[str, str]

    @property
    def ids(self) -> list[str]:
        """The custom_ids in the input's order."""
        return [orjson.loads(line)["custom_id"] for line in self.content.splitlines()]

    def only(self, ids: set[str]) -> "Order":
        """The same, as far as these lines go."""
        lines = [
            line
            for line in self.content.splitlines(keepends=True)
            if orjson.loads(line)["custom_id"] in ids
        ]
        refusals = {key: code for key, code in self.refusals.items() if key in ids}
        return Order(self.endpoint, b"".join(lines), refusals)


def make_order(
    source: random.Random,
    lines: int,
    *,
    tokens: tuple[int, int] = (4, 24),
    poison: tuple[int, ...] = (),
    spotless: bool = False,
) -> Order:
    """An input of so many lines.

    Args:
        source: of everything random in it.
        lines: how many.
        tokens: fewest and most tokens of an answer.
        poison: places (from 0) of the lines that end every engine.
        spotless: no bad lines and no duplicates.
    """
    endpoint = source.choice((CHAT, COMPLETIONS))
    shared = source.choices(tiny.WORDS, k=SHARED_WORDS)
    made: list[bytes] = []
    refusals: dict[str, str] = {}
    body: dict[str, Any] = {}
    for place in range(lines):
        custom_id = f"line-{place:05d}"
        if place in poison:
            body = _body(endpoint, [*shared, tiny.POISON], 4)
            refusals[custom_id] = "engine_crashed"
        elif spotless or not body or source.random() > DUPLICATE_SHARE or place - 1 in poison:
            words = [*shared, *source.choices(tiny.WORDS, k=OWN_WORDS)]
            body = _body(endpoint, words, source.randint(*tokens))
        line = {"custom_id": custom_id, "method": "POST", "url": endpoint, "body": body}
        if place not in poison and not spotless and source.random() < BAD_SHARE:
            line["body"] = body | {"temperature": 9}
            refusals[custom_id] = "invalid_value"
        made.append(orjson.dumps(line) + b"\n")
    return Order(endpoint, b"".join(made), refusals)


def _body(endpoint: str, words: list[str], tokens: int) -> dict[str, Any]:
    text = " ".join(words)
    asked: dict[str, Any] = {"model": tiny.NAME, "max_tokens": tokens, "temperature": 0}
    if endpoint == CHAT:
        return asked | {"messages": [{"role": "user", "content": text}]}
    return asked | {"prompt": text}
