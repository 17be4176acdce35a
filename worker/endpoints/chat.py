"""``/v1/chat/completions``: its bodies and its responses."""

from collections.abc import Mapping
from typing import Any

from engine.requests import Completion, Output, PositionLogprobs, TokenLogprob
from storage.endpoints import CHAT_COMPLETIONS
from worker.endpoints.endpoint import ChatPrompt, Endpoint, ParsedBody
from worker.endpoints.options import read_params, refuse, refuse_stream
from worker.endpoints.response_fields import logprob, usage
from worker.endpoints.values import (
    array,
    boolean,
    integer,
    mapping,
    missing,
    refuse_prompt_of,
    string,
    template_args,
    unsupported,
    wrong_type,
)
from worker.errors import BodyError

# Parameters that would change the output and are not supported: only these values pass.
ALLOWED: Mapping[str, tuple[Any, ...]] = {
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "moderation": (),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": ("medium",),
    "web_search_options": (),
    "response_format": ({"type": "text"},),
}
OWN = frozenset(ALLOWED) | {
    "messages",
    "max_completion_tokens",
    "logprobs",
    "top_logprobs",
    "chat_template_kwargs",
    "stream",
    "stream_options",
}
ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})


def parse(body: Mapping[str, Any]) -> ParsedBody:
    """Read a chat-completion body.

    Raises:
        BodyError: with the parameter at fault.
    """
    refuse_stream(body)
    refuse(body, ALLOWED)
    refuse_prompt_of("prompt", body, "messages", CHAT_COMPLETIONS)
    extra: dict[str, Any] = {}
    if (limit := body.get("max_completion_tokens")) is not None:
        extra["max_tokens"] = integer("max_completion_tokens", limit)
    if (logprobs := _logprobs(body)) is not None:
        extra["logprobs"] = logprobs
    try:
        params = read_params(body, OWN, extra)
    except BodyError as error:
        raise _own_name(error, body) from error
    if params.max_tokens == 0:
        name = (
            "max_tokens" if body.get("max_completion_tokens") is None else "max_completion_tokens"
        )
        raise BodyError(f"'{name}' must be at least 1.", param=name, code="invalid_value")
    given = body.get("chat_template_kwargs")
    arguments = {} if given is None else template_args("chat_template_kwargs", given)
    return ParsedBody((ChatPrompt(_messages(body), arguments),), params)


def _own_name(error: BodyError, body: Mapping[str, Any]) -> BodyError:
    """The same error, with the body's own name of the parameter in place of the engine's."""
    param = error.param
    if param == "logprobs":
        param = "top_logprobs"
    elif param == "max_tokens" and body.get("max_completion_tokens") is not None:
        param = "max_completion_tokens"
    if error.param is None or param == error.param:
        return error
    return BodyError(str(error).replace(error.param, str(param), 1), param=param, code=error.code)


def _logprobs(body: Mapping[str, Any]) -> int | None:
    wanted = body.get("logprobs")
    top = body.get("top_logprobs")
    if wanted is None or not boolean("logprobs", wanted):
        if top is not None and integer("top_logprobs", top) > 0:
            raise BodyError(
                "'top_logprobs' needs 'logprobs' to be true.",
                param="top_logprobs",
                code="invalid_value",
            )
        return None
    return 0 if top is None else integer("top_logprobs", top)


def _messages(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    if body.get("messages") is None:
        raise missing("messages")
    messages = array("messages", body["messages"])
    if not messages:
        raise BodyError(
            "'messages' is empty: expected at least one message.",
            param="messages",
            code="empty_array",
        )
    return [_message(f"messages[{i}]", message) for i, message in enumerate(messages)]


def _message(name: str, value: Any) -> dict[str, Any]:
    message = mapping(name, value)
    if message.get("role") is None:
        raise missing(f"{name}.role")
    role = string(f"{name}.role", message["role"])
    if role not in ROLES:
        raise BodyError(
            f"Invalid value: '{role[:40]}'. Supported values are: "
            f"{', '.join(repr(known) for known in sorted(ROLES))}.",
            param=f"{name}.role",
            code="invalid_value",
        )
    if message.get("tool_calls") or message.get("function_call"):
        raise unsupported(f"{name}.tool_calls", "Tool calls are not supported.")
    content = message.get("content")
    if content is None:
        if role != "assistant":
            raise missing(f"{name}.content")
        content = ""
    # Templates of open models know "system" and not OpenAI's newer name for it.
    role = "system" if role == "developer" else role
    return {**message, "role": role, "content": _content(f"{name}.content", content)}


def _content(name: str, value: Any) -> str:
    """The text of a message; its content parts are joined by newlines, as in vLLM."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise wrong_type(name, "a string or an array of content parts", value)
    return "\n".join(_content_part(f"{name}[{i}]", item) for i, item in enumerate(value))


def _content_part(name: str, value: Any) -> str:
    content_part = mapping(name, value)
    kind = content_part.get("type")
    if kind != "text":
        shown = kind[:40] if isinstance(kind, str) else "null"
        raise BodyError(
            f"Content parts of type '{shown}' are not supported: only 'text' is.",
            param=f"{name}.type",
            code="invalid_value",
        )
    if content_part.get("text") is None:
        raise missing(f"{name}.text")
    return string(f"{name}.text", content_part["text"])


def respond(completion: Completion, model: str, created: int) -> dict[str, Any]:
    """The response body of a completion that ran; see `Endpoint.respond`."""
    return {
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [_choice(output) for output in completion.outputs],
        "usage": usage(completion),
        "system_fingerprint": None,
    }


def _choice(output: Output) -> dict[str, Any]:
    logprobs = None
    if output.logprobs is not None:
        content = [_position_logprobs(position) for position in output.logprobs]
        logprobs = {"content": content, "refusal": None}
    return {
        "index": output.index,
        "message": {"role": "assistant", "content": output.text, "refusal": None},
        "logprobs": logprobs,
        "finish_reason": output.finish_reason,
    }


def _position_logprobs(position: PositionLogprobs) -> dict[str, Any]:
    top = [_token_logprob(token) for token in position.top]
    return {**_token_logprob(position.chosen), "top_logprobs": top}


def _token_logprob(token: TokenLogprob) -> dict[str, Any]:
    return {"token": token.token, "logprob": logprob(token), "bytes": list(token.bytes)}


ENDPOINT = Endpoint(
    path=CHAT_COMPLETIONS,
    prompt_param="messages",
    id_prefix="chatcmpl-",
    parse=parse,
    respond=respond,
    continues=False,
)
