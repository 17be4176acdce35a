"""Fields that the response bodies of several endpoints share."""

from collections.abc import Sequence
from typing import Any

from engine.requests import Completion, TokenLogprob

LOWEST_LOGPROB = -9999.0  # what OpenAI writes for a probability of 0: JSON has no infinity


def usage(completion: Completion) -> dict[str, Any]:
    """The ``usage`` object of a response: counts of tokens."""
    prompt_tokens = len(completion.prompt_token_ids)
    completion_tokens = completion.completion_tokens
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": completion.cached_tokens},
    }


def as_duplicate(body: dict[str, Any]) -> dict[str, Any]:
    """The same response body for another, equal line: its whole prompt counts as cached."""
    counts = body["usage"]
    cached = {"cached_tokens": counts["prompt_tokens"]}
    return {**body, "usage": {**counts, "prompt_tokens_details": cached}}


def joined(bodies: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One response body of those for a line's prompts: choices numbered on, usage summed."""
    choices = (choice for body in bodies for choice in body["choices"])
    cached = sum(body["usage"]["prompt_tokens_details"]["cached_tokens"] for body in bodies)
    counted = ("prompt_tokens", "completion_tokens", "total_tokens")
    return {
        **bodies[0],
        "created": max(body["created"] for body in bodies),
        "choices": [{**choice, "index": index} for index, choice in enumerate(choices)],
        "usage": {
            **{name: sum(body["usage"][name] for body in bodies) for name in counted},
            "prompt_tokens_details": {"cached_tokens": cached},
        },
    }


def logprob(token: TokenLogprob) -> float:
    """A token's natural log-probability, as JSON can hold it."""
    return max(token.logprob, LOWEST_LOGPROB)
