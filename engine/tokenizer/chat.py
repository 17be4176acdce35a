"""Chat templates: Jinja sources that come with a model and turn messages into a prompt.

They are data from elsewhere that runs as code, so they run in Jinja's immutable sandbox. What they
may use is what ``apply_chat_template`` of the transformers library gives them.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from engine.errors import TokenizerError
from engine.tokenizer.content import (
    Disguise,
    covering,
    joined,
    keeping,
    kept,
    showing,
    shown,
    to_json,
    worn,
)
from engine.tokenizer.controls import ControlTokens
from engine.tokenizer.guard import RenderedChat
from engine.tokenizer.messages import plain_message, texts, with_contents

DEFAULT = "default"
TOOL_USE = "tool_use"
_COMPILED_TEMPLATES = 16

# What a template that does more with a text than print or cut it says.
_REWRITES = re.compile(
    r"\b(replace|join|lower|upper|title|capitalize|swapcase|casefold|translate|reverse|format)\b"
)

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
        controls: the control tokens that only templates may write; ``None`` where messages may.
    """

    def __init__(
        self,
        templates: Mapping[str, str],
        variables: Mapping[str, str],
        controls: ControlTokens | None = None,
    ) -> None:
        self._templates = dict(templates)
        self._variables = dict(variables)
        self._controls = controls
        self._compile = lru_cache(_COMPILED_TEMPLATES)(_Environment().from_string)
        self._rewrites = lru_cache(_COMPILED_TEMPLATES)(_REWRITES.search)

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

        Where a text of messages, tools or variables could be read as a control token, the prompt
        is a `RenderedChat`, which tells it from those of the template.

        Args:
            messages: in the OpenAI form. Lists of text parts are joined by newlines, and the
                arguments of tool calls, JSON in a string there, are parsed for the template.
                A field without a value (null, an empty list) is as if it were not there.
            tools: JSON schemas of functions; a template named ``tool_use`` is preferred then.
            add_generation_prompt: end with the head of the assistant's answer.
            template: the name of one of the model's templates, or a template's source.
            kwargs: further variables for the template, such as ``enable_thinking``.

        Raises:
            TokenizerError: there is no template, it is no valid Jinja, a message has content that
                is not text, or the template rejects the messages.
        """
        source = self._source(template, bool(tools))
        given: dict[str, Any] = {
            "messages": [plain_message(message) for message in messages],
            "tools": tools or None,
            **kwargs,
        }
        options = {"add_generation_prompt": add_generation_prompt}
        if not self._could_be_read(given, source):
            return self._render(source, given | options)
        used = [source, *self._variables.values(), *texts(given, everything=True)]
        assert self._controls is not None
        with worn(Disguise.of(self._controls.letters(used), used)):
            disguised = self._render(source, with_contents(given) | options)
            return RenderedChat(shown(disguised), str.__str__(disguised))

    def _could_be_read(self, given: Mapping[str, Any], source: str) -> bool:
        """Whether a control token could be read where a message, and not the template, wrote it."""
        if not self._controls:
            return False
        rewritten = self._rewrites(source) is not None
        possible_in = self._controls.possible_in
        return any(possible_in(text, rewritten=rewritten) for text in texts(given))

    def _render(self, source: str, given: Mapping[str, Any]) -> str:
        try:
            return self._compile(source).render({"documents": None, **self._variables, **given})
        except jinja2.TemplateSyntaxError as problem:
            raise TokenizerError(
                f"The chat template is not valid Jinja: line {problem.lineno}: {problem.message}"
            ) from problem
        except _RENDER_ERRORS as problem:
            reason = shown(str(problem)) or type(problem).__name__
            raise TokenizerError(f"The chat template rejects these messages: {reason}") from problem

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

    def parse(self, parser: Parser) -> nodes.Scope:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _Generator(CodeGenerator):
    """Compiles ``~`` so that contents stay contents."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.concat((")
        for operand in node.nodes:
            self.visit(operand, frame)
            self.write(", ")
        self.write("))")


# Filters that read characters themselves, and not by the methods of strings.
_READING = ("filesizeformat", "float", "int", "wordcount")
_REWRITING = ("e", "escape", "striptags", "title", "urlencode", "urlize", "wordwrap")


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja as transformers sets it up, for values that may be contents (`Content`)."""

    code_generator_class = _Generator
    concat = staticmethod(joined)

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, "jinja2.ext.loopcontrols"],
        )
        self.filters["tojson"] = _tojson
        wrappers = dict.fromkeys(_READING, showing) | dict.fromkeys(_REWRITING, covering)
        for name, each in self.filters.items():
            self.filters[name] = wrappers.get(name, keeping)(each)
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now

    def call(self, context: Context, called: Any, /, *args: Any, **kwargs: Any) -> Any:
        """See jinja2: what every call in a template goes through."""
        return kept(super().call(context, called, *args, **kwargs))


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes characters for HTML, which no model was trained on.
    return to_json(value, ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)
