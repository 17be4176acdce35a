"""Messages in the OpenAI form, as chat templates are to get them."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from engine.errors import TokenizerError
from engine.tokenizer.content import hidden

# A role is a word of the template's own, which may make one control token of it: "<|user|>".
_ROLE = re.compile(r"[\w.-]+")
_NOTHING: tuple[Any, ...] = (None, [], (), {})


def plain_message(message: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with content as one string, arguments of tool calls as values, no empty fields."""
    if not isinstance(message, Mapping):
        raise TokenizerError("A message is not an object with a role and content.")
    plain = {name: value for name, value in message.items() if value not in _NOTHING}
    if plain.get("name") == "":
        del plain["name"]
    if "content" in message and "content" not in plain:
        # Beside tool calls, templates tell no content from an empty one.
        plain["content"] = None if plain.get("tool_calls") else ""
    if isinstance(plain.get("content"), (list, tuple)):
        plain["content"] = "\n".join(_text_of(piece) for piece in plain["content"])
    if isinstance(plain.get("tool_calls"), (list, tuple)):
        plain["tool_calls"] = [_plain_tool_call(call) for call in plain["tool_calls"]]
    return plain


def _text_of(piece: Any) -> str:
    if isinstance(piece, str):
        return piece
    if isinstance(piece, Mapping) and isinstance(piece.get("text"), str):
        return str(piece["text"])
    kind = piece.get("type") if isinstance(piece, Mapping) else type(piece).__name__
    raise TokenizerError(f"A message holds a content part of type {kind!r}; only text is taken.")


def _plain_tool_call(call: Any) -> Any:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except (ValueError, RecursionError):
        return call  # what the model wrote was not JSON; the template shows it as it is
    return {**call, "function": {**function, "arguments": arguments}}


def texts(given: Mapping[str, Any], everything: bool = False) -> Iterator[str]:
    """The texts of messages, tools and variables that are no words of the template's own.

    Args:
        given: variables of a template.
        everything: those too.
    """
    for name, value in given.items():
        if name == "messages":
            for message in value:
                role = message.get("role")
                if everything or not _is_role(role):
                    yield from _strings(role)
                yield from _strings({key: message[key] for key in message if key != "role"}, 1)
        elif everything or not name.endswith("_token"):
            yield from _strings(value)


def _strings(value: Any, depth: int = 0) -> Iterator[str]:
    """The strings in a JSON value; keys of the ``depth`` outer objects are not among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if depth < 1:
                yield from _strings(key)
            yield from _strings(item, depth - 1)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item, depth - 1)


def _is_role(value: Any) -> bool:
    return isinstance(value, str) and _ROLE.fullmatch(value) is not None


def with_contents(given: Mapping[str, Any]) -> dict[str, Any]:
    """The same with every text of `texts` as a content."""
    made = {
        name: value if name.endswith("_token") else _as_content(value)
        for name, value in given.items()
        if name != "messages"
    }
    messages = [
        {
            name: value if name == "role" and _is_role(value) else _as_content(value)
            for name, value in message.items()
        }
        for message in given["messages"]
    ]
    return made | {"messages": messages}


def _as_content(value: Any) -> Any:
    if isinstance(value, str):
        return hidden(value)
    if isinstance(value, Mapping):
        return {_as_content(key): _as_content(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_content(item) for item in value]
    return value
