"""Chat templates: Jinja sources that come with a model and turn messages into a prompt.

They are data from elsewhere that runs as code, so they run in Jinja's immutable sandbox. What they
may use is what ``apply_chat_template`` of the transformers library gives them.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
from jinja2.ext import Extension
from jinja2.nodes import Scope
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from engine.errors import TokenizerError

DEFAULT = "default"
TOOL_USE = "tool_use"
_COMPILED_TEMPLATES = 16

# What a template can run into with messages it was not written for.
_RENDER_ERRORS = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)


class ChatTemplates:
    """A model's templates, compiled when first used.

    Args:
        templates: name → Jinja source.
        variables: what every template may name beside its arguments (``bos_token``, …).
    """

    def __init__(self, templates: Mapping[str, str], variables: Mapping[str, str]) -> None:
        self._templates = dict(templates)
        self._variables = dict(variables)
        self._compile = lru_cache(_COMPILED_TEMPLATES)(_environment().from_string)

    def __bool__(self) -> bool:
        return bool(self._templates)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        template: str | None = None,
        **kwargs: Any,
    ) -> str:
        """Messages → prompt.

        Args:
            messages: in the OpenAI form. Lists of text parts are joined by newlines, and the
                arguments of tool calls, JSON in a string there, are parsed for the template.
            tools: JSON schemas of functions; a template named ``tool_use`` is preferred then.
            add_generation_prompt: end with the head of the assistant's answer.
            template: the name of one of the model's templates, or a template's source.
            kwargs: further variables for the template, such as ``enable_thinking``.

        Raises:
            TokenizerError: there is no template, it is no valid Jinja, a message has content that
                is not text, or the template rejects the messages.
        """
        source = self._source(template, tools is not None)
        plain = [_plain_message(message) for message in messages]
        variables = {"documents": None, **self._variables, **kwargs}
        try:
            return self._compile(source).render(
                variables,
                messages=plain,
                tools=tools,
                add_generation_prompt=add_generation_prompt,
            )
        except jinja2.TemplateSyntaxError as problem:
            raise TokenizerError(
                f"The chat template is not valid Jinja: line {problem.lineno}: {problem.message}"
            ) from problem
        except _RENDER_ERRORS as problem:
            raise TokenizerError(
                f"The chat template rejects these messages: {problem or type(problem).__name__}"
            ) from problem

    def _source(self, template: str | None, with_tools: bool) -> str:
        if template is not None:
            return self._templates.get(template, template)
        if with_tools and TOOL_USE in self._templates:
            return self._templates[TOOL_USE]
        if DEFAULT in self._templates:
            return self._templates[DEFAULT]
        if self._templates:
            raise TokenizerError(
                "The model has several chat templates and none is the default; name one: "
                f"{', '.join(sorted(self._templates))}."
            )
        raise TokenizerError(
            "The model has no chat template, so it takes prompts and no messages. "
            "Use completions, or give a template."
        )


class _Generation(Extension):
    """``{% generation %}`` marks the assistant's words for training; here it changes nothing."""

    def __init__(self, environment: jinja2.Environment) -> None:
        super().__init__(environment)
        self.tags = {"generation"}

    def parse(self, parser: Parser) -> Scope:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return Scope(body, lineno=line)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes characters for HTML, which no model was trained on.
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


def _plain_message(message: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with content as one string and the arguments of tool calls as values."""
    if not isinstance(message, Mapping):
        raise TokenizerError("A message is not an object with a role and content.")
    plain = dict(message)
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
