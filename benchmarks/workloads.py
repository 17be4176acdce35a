"""The workloads of every throughput figure, as token ids, so that engines get the same work."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

# Ordinary tokens only: below lie the special tokens of the embedded model.
FIRST_TOKEN = 100


@dataclass(frozen=True, slots=True)
class Item:
    """One request: its prompt, and how many tokens it must generate (end tokens are ignored)."""

    prompt: tuple[int, ...]
    output_tokens: int


def mixed64(vocab_size: int) -> list[Item]:
    """64 requests, prompts of 32 to 256 random tokens, answers of 32 to 128."""
    random = Random(64)
    return [
        Item(_tokens(random, vocab_size, random.randint(32, 256)), random.randint(32, 128))
        for _ in range(64)
    ]


def prefix64(vocab_size: int) -> list[Item]:
    """64 requests, a common prefix of 512 tokens and 32 of their own, answers of 32."""
    return _with_prefix(vocab_size, requests=64)


def prefix256(vocab_size: int) -> list[Item]:
    """`prefix64` with 256 requests."""
    return _with_prefix(vocab_size, requests=256)


def _with_prefix(vocab_size: int, requests: int) -> list[Item]:
    random = Random(512)
    prefix = _tokens(random, vocab_size, 512)
    return [Item(prefix + _tokens(random, vocab_size, 32), 32) for _ in range(requests)]


def _tokens(random: Random, vocab_size: int, count: int) -> tuple[int, ...]:
    return tuple(random.randrange(FIRST_TOKEN, vocab_size) for _ in range(count))


WORKLOADS: Mapping[str, Callable[[int], list[Item]]] = {
    "mixed64": mixed64,
    "prefix64": prefix64,
    "prefix256": prefix256,
}
