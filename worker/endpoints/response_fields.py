"""Fields that the response bodies of several endpoints share."""

from typing import Any

from engine.requests import Completion, TokenLogprob

LOWEST_LOGPROB = -9999.0  # what OpenAI writes for a probability of 0: JSON has no infinity


def usage(completion: Completion) -> dict[str, Any]:
    """The ``usage`` object of a response: counts of tokens."""
    return _usage(
        len(completion.prompt_token_ids), completion.completion_tokens, completion.cached_tokens
    )


def _usage(prompt: int, completion: int, cached: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def as_duplicate(body: dict[str, Any]) -> dict[str, Any]:
    """The same response body for another, equal line: its whole prompt counts as cached."""
    counts = body["usage"]
    prompt = counts["prompt_tokens"]
    return {**body, "usage": _usage(prompt, counts["completion_tokens"], prompt)}


def logprob(token: TokenLogprob) -> float:
    """A token's natural log-probability, as JSON can hold it."""
    return max(token.logprob, LOWEST_LOGPROB)
