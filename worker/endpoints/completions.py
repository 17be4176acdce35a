"""The body of ``/v1/completions``."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from worker.endpoints.options import (
    ParsedBody,
    Prompt,
    TextPrompt,
    TokenPrompt,
    read_params,
    refuse,
    refuse_stream,
)
from worker.endpoints.values import array, integer, missing, token_ids, wrong_type
from worker.errors import BodyError

DEFAULT_MAX_TOKENS = 16  # OpenAI's own

ALLOWED: Mapping[str, tuple[Any, ...]] = {
    "echo": (False,),
    "suffix": ("",),
    "response_format": ({"type": "text"},),
}
OWN = frozenset(ALLOWED) | {"prompt", "best_of", "logprobs", "stream", "stream_options"}


def parse_completion(body: Mapping[str, Any]) -> ParsedBody:
    """Read a completion body.

    Raises:
        BodyError: with the parameter at fault.
    """
    refuse_stream(body)
    refuse(body, ALLOWED)
    extra: dict[str, Any] = {}
    if (logprobs := body.get("logprobs")) is not None:
        extra["logprobs"] = integer("logprobs", logprobs)
    params = read_params(body, OWN, extra)
    best_of = body.get("best_of")
    if best_of is not None and integer("best_of", best_of) != params.n:
        raise BodyError(
            "'best_of' is supported only where it equals 'n'.",
            param="best_of",
            code="unsupported_parameter",
        )
    if params.max_tokens is None:
        params = replace(params, max_tokens=max(DEFAULT_MAX_TOKENS, params.min_tokens))
    return ParsedBody(_prompt(body), params)


def _prompt(body: Mapping[str, Any]) -> Prompt:
    value = body.get("prompt")
    if value is None:
        raise missing("prompt")
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str | list):
        value = value[0]
    if isinstance(value, str):
        return _not_empty(TextPrompt(value), value)
    if not isinstance(value, list):
        raise wrong_type("prompt", "a string or an array of token ids", value)
    if any(isinstance(item, str | list) for item in value):
        raise BodyError(
            "A line of a batch has one prompt: write one line for each of several.",
            param="prompt",
            code="invalid_value",
        )
    return _not_empty(TokenPrompt(token_ids("prompt", array("prompt", value))), value)


def _not_empty(prompt: Prompt, value: str | list[Any]) -> Prompt:
    if not value:
        raise BodyError("'prompt' is empty.", param="prompt", code="invalid_value")
    return prompt
