"""What an endpoint is: how a body of it is parsed, and how a completion becomes a response.

A new endpoint is a module with such a value, its path in `storage.endpoints`, and one line in
`worker.endpoints.registry`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.params import SamplingParams
from engine.requests import Completion


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """Messages for the chat template; ``template_args`` go to the template as variables."""

    messages: list[dict[str, Any]]
    template_args: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TextPrompt:
    """Text that is tokenized as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class TokenPrompt:
    """A prompt that is token ids already."""

    ids: tuple[int, ...]


Prompt = ChatPrompt | TextPrompt | TokenPrompt


@dataclass(frozen=True, slots=True)
class ParsedBody:
    """What a line asks for: one prompt or several, each with the same parameters.

    Attributes:
        params: their ``max_tokens`` is ``None`` where the body sets none.
        echo: whether each response begins with its prompt.
        suffix: text that follows the outputs, which are to fill in what lies between.
    """

    prompts: tuple[Prompt, ...]
    params: SamplingParams
    echo: bool = False
    suffix: str | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint of the API.

    Attributes:
        path: as a batch and its lines name it.
        prompt_param: the parameter that holds the prompt; errors about the prompt name it.
        id_prefix: how the ids of its responses begin.
        parse: request body → what to run. Raises `BodyError` with the parameter at fault.
        respond: (completion, model's name, Unix seconds) → response body without its ``id``, which
            differs for each of several equal lines. The completion is one that ran: it has
            outputs, and all of them ended by ``stop`` or ``length``.
        continues: see `engine.Request`.
        echo: (what ``respond`` gave, the completion, the prompt's text) → the response body that
            begins with the prompt; ``None`` where no body asks for it.
    """

    path: str
    prompt_param: str
    id_prefix: str
    parse: Callable[[Mapping[str, Any]], ParsedBody]
    respond: Callable[[Completion, str, int], dict[str, Any]]
    continues: bool = True
    echo: Callable[[dict[str, Any], Completion, str], dict[str, Any]] | None = None
