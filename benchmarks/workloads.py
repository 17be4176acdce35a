"""The workloads of every throughput figure, as token ids, so that engines get the same work.

Each is made anew for every run, with other tokens and the same lengths: what an earlier run left in
a prefix cache must not help.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from random import Random

# Ordinary tokens only: below lie the special tokens of the embedded model.
FIRST_TOKEN = 100
INSTRUCTION = "Say in one sentence what this text is about.\n\n"


@dataclass(frozen=True, slots=True)
class Item:
    """One request: its prompt, and how many tokens it must generate (end tokens are ignored)."""

    prompt: tuple[int, ...]
    output_tokens: int


def mixed64(vocab_size: int, run: int) -> list[Item]:
    """64 requests, prompts of 32 to 256 random tokens, answers of 32 to 128."""
    lengths, tokens = Random(64), Random(run)
    return [
        Item(_tokens(tokens, vocab_size, lengths.randint(32, 256)), lengths.randint(32, 128))
        for _ in range(64)
    ]


def prefix64(vocab_size: int, run: int) -> list[Item]:
    """64 requests, a common prefix of 512 tokens and 32 of their own, answers of 32."""
    return _with_prefix(vocab_size, run, requests=64)


def prefix256(vocab_size: int, run: int) -> list[Item]:
    """`prefix64` with 256 requests."""
    return _with_prefix(vocab_size, run, requests=256)


def groups512(vocab_size: int, run: int) -> list[Item]:
    """16 prefixes as in `prefix64`, 32 requests each, arriving shuffled."""
    items = [
        item
        for group in range(16)
        for item in _with_prefix(vocab_size, 1000 * run + group, requests=32)
    ]
    Random(run).shuffle(items)
    return items


def decode64(vocab_size: int, run: int) -> list[Item]:
    """64 requests, prompts of 32 random tokens, answers of 256."""
    tokens = Random(run)
    return [Item(_tokens(tokens, vocab_size, 32), 256) for _ in range(64)]


def prefill64(vocab_size: int, run: int) -> list[Item]:
    """64 requests, prompts of 512 to 1,024 random tokens, answers of 8."""
    lengths, tokens = Random(8), Random(run)
    return [Item(_tokens(tokens, vocab_size, lengths.randint(512, 1024)), 8) for _ in range(64)]


def few(count: int) -> Callable[[int, int], list[Item]]:
    """So many requests, prompts of 128 random tokens, answers of 128."""

    def make(vocab_size: int, run: int) -> list[Item]:
        tokens = Random(run)
        return [Item(_tokens(tokens, vocab_size, 128), 128) for _ in range(count)]

    make.__doc__ = f"{count} of prompts of 128 random tokens, answers of 128."
    return make


def long(count: int) -> Callable[[int, int], list[Item]]:
    """So many requests, prompts of 128 random tokens, answers of 512."""

    def make(vocab_size: int, run: int) -> list[Item]:
        tokens = Random(run)
        return [Item(_tokens(tokens, vocab_size, 128), 512) for _ in range(count)]

    make.__doc__ = f"{count} of prompts of 128 random tokens, answers of 512."
    return make


def nano(vocab_size: int, run: int) -> list[Item]:
    """256 requests, prompts and answers of 100 to 1,024: nano-vllm's benchmark.

    Its lengths come from one stream of random numbers with its tokens, so both are drawn as it
    draws them; the tokens are then replaced.
    """
    drawn, tokens = Random(0), Random(run)
    highest = min(10_000, vocab_size - 1)
    prompts = [
        [drawn.randint(0, highest) for _ in range(drawn.randint(100, 1024))] for _ in range(256)
    ]
    return [
        Item(_tokens(tokens, vocab_size, len(prompt)), drawn.randint(100, 1024))
        for prompt in prompts
    ]


def q1000(vocab_size: int, run: int) -> list[Item]:
    """500 requests, prompts of 1,000 random tokens, answers of 1,000."""
    tokens = Random(run)
    return [Item(_tokens(tokens, vocab_size, 1000), 1000) for _ in range(500)]


def groups4096(vocab_size: int, run: int) -> list[Item]:
    """64 prefixes of 1,024 tokens, 64 requests each with 64 of their own and answers of 64."""
    tokens = Random(run)
    prefixes = [_tokens(tokens, vocab_size, 1024) for _ in range(64)]
    items = [
        Item(prefix + _tokens(tokens, vocab_size, 64), 64) for prefix in prefixes for _ in range(64)
    ]
    Random(2).shuffle(items)
    return items


def shrunk(items: list[Item], count: int, share: float) -> list[Item]:
    """The first few, prompts and answers cut to a share of their tokens, for a trial run."""
    return [
        Item(
            item.prompt[: max(1, int(len(item.prompt) * share))],
            max(1, int(item.output_tokens * share)),
        )
        for item in items[:count]
    ]


def docstrings1000(vocab_size: int, run: int) -> list[Item]:
    """1,000 docstrings as chat prompts behind an instruction, answers of 32.

    Needs the embedded model's tokenizer.
    """
    from texts import docstrings

    from engine.catalog import resolve
    from engine.tokenizer import load_tokenizer

    found = [text for text in docstrings() if 40 < len(text) < 10_000]
    Random(0).shuffle(found)
    if len(found) < 2_000:
        raise SystemExit(f"Only {len(found)} docstrings of a fitting length were found.")
    start = run % (len(found) // 1000) * 1000
    tokenizer = load_tokenizer(resolve("smollm2"))
    return [
        Item(tuple(tokenizer.encode_chat([{"role": "user", "content": INSTRUCTION + text}])), 32)
        for text in islice(found, start, start + 1000)
    ]


def _with_prefix(vocab_size: int, seed: int, requests: int) -> list[Item]:
    random = Random(seed)
    prefix = _tokens(random, vocab_size, 512)
    return [Item(prefix + _tokens(random, vocab_size, 32), 32) for _ in range(requests)]


def _tokens(random: Random, vocab_size: int, count: int) -> tuple[int, ...]:
    return tuple(random.randrange(FIRST_TOKEN, vocab_size) for _ in range(count))


# By name: from a vocabulary's size and a run's number to requests.
WORKLOADS: Mapping[str, Callable[[int, int], list[Item]]] = {
    "mixed64": mixed64,
    "prefix64": prefix64,
    "prefix256": prefix256,
    "groups512": groups512,
    "decode64": decode64,
    "prefill64": prefill64,
    "few1": few(1),
    "few4": few(4),
    "few8": few(8),
    "long1": long(1),
    "long16": long(16),
    "nano": nano,
    "q1000": q1000,
    "groups4096": groups4096,
    "docstrings1000": docstrings1000,
}
# Tokens that requests of a workload have in common at their start, for engines that must be told.
SHARED = {"prefix64": 512, "prefix256": 512, "groups512": 512}
