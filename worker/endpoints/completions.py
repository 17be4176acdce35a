"""``/v1/completions``: its bodies and its responses."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from engine.requests import Completion, Output, PositionLogprobs, TokenLogprob
from storage.endpoints import COMPLETIONS
from worker.endpoints.endpoint import Endpoint, ParsedBody, Prompt, TextPrompt, TokenPrompt
from worker.endpoints.offsets import text_offsets
from worker.endpoints.options import read_params, refuse, refuse_stream
from worker.endpoints.response_fields import logprob, usage
from worker.endpoints.values import (
    boolean,
    integer,
    missing,
    refuse_prompt_of,
    string,
    token_ids,
    wrong_type,
)
from worker.errors import BodyError

DEFAULT_MAX_TOKENS = 16  # OpenAI's own
MAX_PROMPTS = 2_048  # of a line, as OpenAI limits its lists of inputs
MAX_LINE_CHOICES = 4_096

# Parameters that would change the output and are not supported: only these values pass.
ALLOWED: Mapping[str, tuple[Any, ...]] = {
    "response_format": ({"type": "text"},),
}
OWN = frozenset(ALLOWED) | {
    "prompt",
    "best_of",
    "echo",
    "logprobs",
    "stream",
    "stream_options",
    "suffix",
}


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
    if (best_of := body.get("best_of")) is not None:
        extra["best_of"] = integer("best_of", best_of)
    echo = body.get("echo") is not None and boolean("echo", body["echo"])
    if echo and logprobs is not None:
        extra["prompt_logprobs"] = extra["logprobs"]
    suffix = None if body.get("suffix") is None else string("suffix", body["suffix"])
    if suffix and echo and logprobs is not None:
        raise BodyError(
            "'echo' with 'logprobs' cannot be used together with 'suffix'.",
            param="echo",
            code="unsupported_parameter",
        )
    params = read_params(body, OWN, extra)
    if params.max_tokens is None:
        params = replace(params, max_tokens=max(DEFAULT_MAX_TOKENS, params.min_tokens))
    prompts = (TextPrompt(""),) if suffix and body.get("prompt") == "" else _prompts(body)
    if len(prompts) * params.num_generated > MAX_LINE_CHOICES:
        raise BodyError(
            f"{len(prompts)} prompts with {params.num_generated} choices each are more than "
            f"{MAX_LINE_CHOICES:,} choices: write several lines.",
            param="n" if params.best_of is None else "best_of",
            code="invalid_value",
        )
    return ParsedBody(prompts, params, echo, suffix or None)


def _prompts(body: Mapping[str, Any]) -> tuple[Prompt, ...]:
    """A text, a list of token ids, or a list of either."""
    value = body.get("prompt")
    if value is None:
        raise missing("prompt")
    if not isinstance(value, list) or not value or not isinstance(value[0], str | list):
        return (_prompt("prompt", value),)
    if len(value) > MAX_PROMPTS:
        raise BodyError(
            f"'prompt' holds {len(value):,} prompts; a line may have {MAX_PROMPTS:,}.",
            param="prompt",
            code="invalid_value",
        )
    kind, expected = (str, "a string") if isinstance(value[0], str) else (list, "an array")
    for place, item in enumerate(value):
        if not isinstance(item, kind):
            raise wrong_type(f"prompt[{place}]", f"{expected} as in 'prompt[0]'", item)
    return tuple(_prompt(f"prompt[{place}]", item) for place, item in enumerate(value))


def _prompt(name: str, value: Any) -> Prompt:
    if not isinstance(value, str | list):
        expected = "a string, an array of strings, of token ids, or of arrays of token ids"
        raise wrong_type(name, expected, value)
    if not value:
        raise BodyError(f"'{name}' is empty.", param=name, code="invalid_value")
    return TextPrompt(value) if isinstance(value, str) else TokenPrompt(token_ids(name, value))


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
    logprobs = None if output.logprobs is None else _logprobs(output.text, output.logprobs)
    return {
        "index": output.index,
        "text": output.text,
        "logprobs": logprobs,
        "finish_reason": output.finish_reason,
    }


def echo(body: dict[str, Any], completion: Completion, prompt: str) -> dict[str, Any]:
    """The response body with the prompt's text, and its log-probabilities, in front."""
    choices: list[dict[str, Any]] = []
    for choice, output in zip(body["choices"], completion.outputs, strict=True):
        text = prompt + output.text
        logprobs = choice["logprobs"]
        if completion.prompt_logprobs is not None and output.logprobs is not None:
            before = tuple(each for each in completion.prompt_logprobs if each is not None)
            positions = (*before, *output.logprobs)
            logprobs = _logprobs(text, positions, completion.prompt_start)
        choices.append({**choice, "text": text, "logprobs": logprobs})
    return {**body, "choices": choices}


def _logprobs(
    text: str, positions: Sequence[PositionLogprobs], start: TokenLogprob | None = None
) -> dict[str, Any]:
    """The older form of log-probabilities: parallel arrays; offsets count characters.

    Args:
        text: what the tokens are of.
        positions: one a token.
        start: a token ahead of them, which has no log-probability.
    """
    tokens = [position.chosen for position in positions]
    values: list[float | None] = [logprob(token) for token in tokens]
    top: list[dict[str, float] | None] = [
        {token.token: logprob(token) for token in position.top} for position in positions
    ]
    if start is not None:
        tokens, values, top = [start, *tokens], [None, *values], [None, *top]
    return {
        "tokens": [token.token for token in tokens],
        "token_logprobs": values,
        "top_logprobs": top if any(top) else None,
        "text_offset": text_offsets(text, [token.bytes for token in tokens]),
    }


ENDPOINT = Endpoint(
    path=COMPLETIONS,
    prompt_param="prompt",
    id_prefix="cmpl-",
    parse=parse,
    respond=respond,
    echo=echo,
)
