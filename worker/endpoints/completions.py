"""``/v1/completions``: its bodies and its responses."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from engine.requests import Completion, Output, PositionLogprobs
from storage.endpoints import COMPLETIONS
from worker.endpoints.endpoint import Endpoint, ParsedBody, Prompt, TextPrompt, TokenPrompt
from worker.endpoints.options import read_params, refuse, refuse_stream
from worker.endpoints.response_fields import logprob, usage
from worker.endpoints.values import array, integer, missing, refuse_prompt_of, token_ids, wrong_type
from worker.errors import BodyError

DEFAULT_MAX_TOKENS = 16  # OpenAI's own

# Parameters that would change the output and are not supported: only these values pass.
ALLOWED: Mapping[str, tuple[Any, ...]] = {
    "echo": (False,),
    "suffix": ("",),
    "response_format": ({"type": "text"},),
}
OWN = frozenset(ALLOWED) | {"prompt", "best_of", "logprobs", "stream", "stream_options"}


def parse(body: Mapping[str, Any]) -> ParsedBody:
    """Read a completion body.

    Raises:
        BodyError: with the parameter at fault.
    """
    refuse_stream(body)
    refuse(body, ALLOWED)
    refuse_prompt_of("messages", body, "prompt", COMPLETIONS)
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


def respond(completion: Completion, model: str, created: int) -> dict[str, Any]:
    """The response body of a completion that ran; see `Endpoint.respond`."""
    return {
        "object": "text_completion",
        "created": created,
        "model": model,
        "choices": [_choice(output) for output in completion.outputs],
        "usage": usage(completion),
        "system_fingerprint": None,
    }


def _choice(output: Output) -> dict[str, Any]:
    return {
        "index": output.index,
        "text": output.text,
        "logprobs": None if output.logprobs is None else _logprobs(output.logprobs),
        "finish_reason": output.finish_reason,
    }


def _logprobs(positions: tuple[PositionLogprobs, ...]) -> dict[str, Any]:
    """The older form of log-probabilities: parallel arrays; offsets count characters."""
    offsets: list[int] = []
    offset = 0
    for position in positions:
        offsets.append(offset)
        offset += len(position.chosen.token)
    top = [{token.token: logprob(token) for token in position.top} for position in positions]
    return {
        "tokens": [position.chosen.token for position in positions],
        "token_logprobs": [logprob(position.chosen) for position in positions],
        "top_logprobs": top if any(top) else None,
        "text_offset": offsets,
    }


ENDPOINT = Endpoint(
    path=COMPLETIONS,
    prompt_param="prompt",
    id_prefix="cmpl-",
    parse=parse,
    respond=respond,
)
