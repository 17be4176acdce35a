"""Prompts and parameters in whatever form a user hands them in, made uniform."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.errors import InvalidRequest
from engine.params import SamplingParams
from engine.token_ids import holds_numbers, is_array, is_number, shown, token_ids

Message = Mapping[str, Any]
Prompt = str | Iterable[int] | Iterable[Message] | Mapping[str, Any]

_KINDS = "a text, a list of chat messages or a list of token ids"
_KEYS = ("prompt", "prompt_token_ids")


@dataclass(frozen=True, slots=True)
class PromptBatch:
    """What a user handed in; ``alone`` says that it was one prompt, and not a list of some."""

    prompts: list[Any]
    alone: bool


def split_prompts(prompts: Any) -> PromptBatch:
    """One prompt or several, each still as it was given.

    A list of numbers alone is one prompt's token ids, a list of messages alone one chat. Arrays and
    tensors of two dimensions are several prompts.
    """
    if isinstance(prompts, str | bytes | bytearray | memoryview | Mapping):
        return PromptBatch([prompts], alone=True)
    if is_array(prompts) and prompts.ndim == 1 and holds_numbers(prompts):
        return PromptBatch([prompts], alone=True)
    if is_number(prompts) or not isinstance(prompts, Iterable):
        return PromptBatch([prompts], alone=True)
    items = list(prompts)
    if items and (all(map(is_number, items)) or all(map(_is_message, items))):
        return PromptBatch([items], alone=True)
    return PromptBatch(items, alone=False)


def read_prompt(prompt: Any) -> str | tuple[int, ...] | list[Message]:
    """One prompt: its text, its token ids, or the messages of its chat.

    Raises:
        InvalidRequest: it is no prompt; the message says what it is.
    """
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, Mapping):
        return _read_mapping(prompt)
    if is_array(prompt):
        return token_ids(prompt)
    if isinstance(prompt, bytes | bytearray | memoryview) or not isinstance(prompt, Iterable):
        raise _no_prompt(prompt)
    items = list(prompt)
    if all(map(is_number, items)):
        return token_ids(items)
    if all(isinstance(item, Mapping) for item in items):
        return [_checked(message, index) for index, message in enumerate(items)]
    raise _no_prompt(items)


def read_chat(prompt: Any) -> list[Message]:
    """The messages of one chat.

    Raises:
        InvalidRequest: it is none; the message says what it is.
    """
    read = None if isinstance(prompt, str | Mapping) else read_prompt(prompt)
    if not isinstance(read, list):
        raise InvalidRequest(
            f"A chat is a list of messages, not {shown(prompt)}.", param="messages"
        )
    return read


def read_params(params: Any, count: int) -> list[SamplingParams]:
    """The parameters of each of ``count`` prompts, from one for all, one a prompt, or none.

    Raises:
        InvalidRequest: they are something else, or not as many.
    """
    if params is None or isinstance(params, SamplingParams):
        return [params or SamplingParams()] * count
    if isinstance(params, str | Mapping) or not isinstance(params, Iterable):
        raise InvalidRequest(
            f"params are SamplingParams, or a list with one for each prompt, not {shown(params)}.",
            param="params",
        )
    given = list(params)
    for index, each in enumerate(given):
        if each is not None and not isinstance(each, SamplingParams):
            raise InvalidRequest(
                f"params are SamplingParams, but item {index} is {shown(each)}.", param="params"
            )
    if len(given) != count:
        raise InvalidRequest(f"There are {count} prompts and {len(given)} params.", param="params")
    return [each or SamplingParams() for each in given]


def _read_mapping(prompt: Mapping[str, Any]) -> str | tuple[int, ...] | list[Message]:
    given = {key: value for key, value in prompt.items() if value is not None}
    if "role" in given:
        raise InvalidRequest(
            "One message is no prompt; a chat is a list of messages.", param="prompt"
        )
    if len(given) != 1 or not given.keys() <= set(_KEYS):
        raise InvalidRequest(
            f"A prompt that is a mapping has one key, {_KEYS[0]!r} or {_KEYS[1]!r}, "
            f"not {shown(sorted(map(str, given)))}.",
            param="prompt",
        )
    ((key, value),) = given.items()
    if key == "prompt_token_ids":
        return token_ids(value, key)
    if isinstance(value, Mapping):
        raise _no_prompt(value)
    return read_prompt(value)


def _is_message(item: object) -> bool:
    return isinstance(item, Mapping) and not any(key in item for key in _KEYS)


def _checked(message: Message, index: int) -> Message:
    if isinstance(message.get("role"), str):
        return message
    raise InvalidRequest(
        f"A chat message has a 'role', a text; message {index} is {shown(dict(message))}.",
        param="messages",
    )


def _no_prompt(value: Any) -> InvalidRequest:
    return InvalidRequest(f"A prompt is {_KINDS}, not {shown(value)}.", param="prompt")
