"""The body of ``/v1/chat/completions``."""

from collections.abc import Mapping
from typing import Any

from worker.endpoints.options import ChatPrompt, ParsedBody, read_params, refuse, refuse_stream
from worker.endpoints.values import (
    array,
    boolean,
    integer,
    mapping,
    missing,
    string,
    template_args,
    unsupported,
    wrong_type,
)
from worker.errors import BodyError

# Parameters that would change the answer and are not served: only these values pass.
ALLOWED: Mapping[str, tuple[Any, ...]] = {
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": (),
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


def parse_chat(body: Mapping[str, Any]) -> ParsedBody:
    """Read a chat-completion body.

    Raises:
        BodyError: with the parameter at fault.
    """
    refuse_stream(body)
    refuse(body, ALLOWED)
    extra: dict[str, Any] = {}
    if (limit := body.get("max_completion_tokens")) is not None:
        extra["max_tokens"] = integer("max_completion_tokens", limit)
    if (logprobs := _logprobs(body)) is not None:
        extra["logprobs"] = logprobs
    try:
        params = read_params(body, OWN, extra)
    except BodyError as error:
        raise _own_name(error, body) from error
    given = body.get("chat_template_kwargs")
    arguments = {} if given is None else template_args("chat_template_kwargs", given)
    return ParsedBody(ChatPrompt(_messages(body), arguments), params)


def _own_name(error: BodyError, body: Mapping[str, Any]) -> BodyError:
    """The engine's name of a parameter → the one that the body used."""
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
    """The text of a message; content parts are joined by newlines, as vLLM does."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise wrong_type(name, "a string or an array of content parts", value)
    return "\n".join(_part(f"{name}[{i}]", part) for i, part in enumerate(value))


def _part(name: str, value: Any) -> str:
    part = mapping(name, value)
    kind = part.get("type")
    if kind != "text":
        shown = kind[:40] if isinstance(kind, str) else "null"
        raise BodyError(
            f"Content parts of type '{shown}' are not supported: only 'text' is.",
            param=f"{name}.type",
            code="invalid_value",
        )
    if part.get("text") is None:
        raise missing(f"{name}.text")
    return string(f"{name}.text", part["text"])
