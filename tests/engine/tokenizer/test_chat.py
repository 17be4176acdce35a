"""Chat templates: what they see, what they may do, and how their errors read."""

import json
from datetime import datetime
from typing import Any

import jinja2
import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from engine.errors import TokenizerError
from engine.tokenizer.chat import ChatTemplates

MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief. <é & 'ü'>"},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello\n"},
    {"role": "user", "content": "Bye"},
]
TOOLS = [
    {"type": "function", "function": {"name": "f", "description": "naïve <b>", "parameters": {}}}
]

# Pieces of what published templates do.
TEMPLATES = [
    # Whitespace: trim_blocks and lstrip_blocks.
    """
    {%- for message in messages %}
        {%- if loop.first %}
            START
        {% endif %}
        [{{ message.role }}] {{ message['content'] | trim }}
    {% endfor %}
    {% if add_generation_prompt %}
    assistant:
    {%- endif %}
    """,
    # Loop controls, namespaces, slices, method calls.
    """{% set ns = namespace(seen=0) %}{% for m in messages[1:] %}{% if m.role == 'assistant' %}
{% continue %}{% endif %}{% set ns.seen = ns.seen + 1 %}{{ m.content.upper() }};{% if ns.seen > 1 %}
{% break %}{% endif %}{% endfor %}{{ ns.seen }}""",
    # JSON, with and without indentation.
    "{{ tools | tojson }}{{ tools | tojson(indent=2) }}{{ messages[0].content | tojson }}",
    # Optional variables.
    "{% if documents %}docs{% endif %}{{ enable_thinking is defined }}{{ missing }}",
    # Training marks.
    "{% for m in messages %}{% generation %}{{ m.content }}\n{% endgeneration %}{% endfor %}",
    # Macros and strftime.
    "{% macro line(m) %}<{{ m.role }}>{{ m.content }}{% endmacro %}"
    "{{ line(messages[0]) }}{{ strftime_now('%Y') }}",
]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("prompt", [True, False])
@pytest.mark.parametrize("tools", [None, TOOLS])
def test_rendering_equals_transformers(template: str, prompt: bool, tools: Any) -> None:
    ours = ChatTemplates({"default": template}, {}).render(
        MESSAGES, tools=tools, add_generation_prompt=prompt
    )
    rendered = render_jinja_template(
        [MESSAGES], tools=tools, chat_template=template, add_generation_prompt=prompt
    )
    assert ours == rendered[0][0]


def render(template: str, messages: list[dict[str, Any]] = MESSAGES, **kwargs: Any) -> str:
    return ChatTemplates({"default": template}, {"eos_token": "</s>"}).render(messages, **kwargs)


def test_templates_see_special_tokens_and_further_variables() -> None:
    template = "{{ eos_token }}{{ enable_thinking }}"
    assert render(template, enable_thinking=False) == "</s>False"
    assert render(template, eos_token="<end>", enable_thinking=1) == "<end>1"


def test_the_current_date_is_available() -> None:
    assert render("{{ strftime_now('%d %b %Y') }}") == datetime.now().strftime("%d %b %Y")


def test_text_parts_become_one_string() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    messages = [{"role": "user", "content": parts}]
    assert render("{{ messages[0].content }}", messages) == "one\ntwo"
    assert messages[0]["content"] is parts  # the caller's messages stay as they are


@pytest.mark.parametrize("part", [{"type": "image_url", "image_url": {"url": "x"}}, 5, None])
def test_other_parts_are_refused(part: Any) -> None:
    with pytest.raises(TokenizerError, match="only text"):
        render("{{ messages }}", [{"role": "user", "content": [part]}])


def test_arguments_of_tool_calls_are_values_for_the_template() -> None:
    template = "{{ messages[0].tool_calls[0].function.arguments | tojson }}"

    def with_arguments(arguments: Any) -> list[dict[str, Any]]:
        call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
        return [{"role": "assistant", "content": None, "tool_calls": [call]}]

    assert render(template, with_arguments('{"a": "é"}')) == '{"a": "é"}'
    assert render(template, with_arguments({"a": 1})) == '{"a": 1}'
    assert render(template, with_arguments("not JSON")) == '"not JSON"'


def test_named_templates() -> None:
    chat = ChatTemplates({"default": "plain", "tool_use": "tools", "rag": "rag"}, {})
    assert chat.render(MESSAGES) == "plain"
    assert chat.render(MESSAGES, tools=TOOLS) == "tools"
    assert chat.render(MESSAGES, tools=TOOLS, template="default") == "plain"
    assert chat.render(MESSAGES, template="rag") == "rag"
    assert chat.render(MESSAGES, template="{{ messages | length }}") == "4"
    with pytest.raises(TokenizerError, match=r"name one: rag, tool_use"):
        ChatTemplates({"tool_use": "", "rag": ""}, {}).render(MESSAGES)


def test_without_a_template_the_error_says_what_to_do() -> None:
    chat = ChatTemplates({}, {})
    assert not chat
    with pytest.raises(TokenizerError, match="no chat template"):
        chat.render(MESSAGES)
    assert chat.render(MESSAGES, template="given") == "given"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('Roles must alternate.') }}", "Roles must alternate."),
        ("{% if %}", "not valid Jinja: line 1"),
        ("{{ messages[0].content + 1 }}", "rejects these messages"),
        ("{{ messages[0].nothing.more }}", "rejects these messages"),
        ("{{ 1 / 0 }}", "rejects these messages"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "rejects these messages"),
        ("{% include 'other' %}", "rejects these messages"),
        ("{{ messages[0] | tojson(indent='\\ud800') }}{{ [].pop() }}", "rejects these messages"),
    ],
)
def test_errors_are_readable(template: str, reason: str) -> None:
    with pytest.raises(TokenizerError, match=reason):
        render(template)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ raise_exception.__globals__.json }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'role': 'x'}) }}",
        "{% for i in range(999999999) %}x{% endfor %}",
        "{{ 'x' * 10 ** 14 }}",
    ],
)
def test_templates_cannot_leave_the_sandbox(template: str) -> None:
    before = json.dumps(MESSAGES)
    with pytest.raises(TokenizerError):
        render(template)
    assert json.dumps(MESSAGES) == before


@pytest.mark.parametrize(
    "template", ["{{ ''|attr('__class__') }}", "{{ '{0.__class__}'.format(1) }}"]
)
def test_what_the_sandbox_hides_is_empty_or_an_error(template: str) -> None:
    try:
        shown = render(template)
    except TokenizerError:
        shown = ""
    assert shown == ""


def test_a_template_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    compile_template = jinja2.Environment.from_string

    def counted(self: jinja2.Environment, source: str, *rest: Any) -> jinja2.Template:
        compiled.append(source)
        return compile_template(self, source, *rest)

    monkeypatch.setattr(jinja2.Environment, "from_string", counted)
    chat = ChatTemplates({"default": "{{ messages | length }}"}, {})
    assert [chat.render(MESSAGES) for _ in range(5)] == ["4"] * 5
    assert len(compiled) == 1


def test_messages_that_are_no_objects_are_refused() -> None:
    messages: list[Any] = ["hello"]
    with pytest.raises(TokenizerError, match="not an object"):
        render("{{ messages }}", messages)


@pytest.mark.parametrize(
    "empty",
    [
        {"tool_calls": None},
        {"tool_calls": []},
        {"name": None},
        {"name": ""},
        {"function_call": None, "refusal": None, "audio": None, "annotations": []},
        {"function_call": {}, "reasoning_content": None},
    ],
)
@pytest.mark.parametrize("content", ["Hi", None, []])
def test_fields_without_a_value_are_not_there(empty: dict[str, Any], content: Any) -> None:
    template = (
        "{% for m in messages %}{% if m.tool_calls is defined %}{% for c in m.tool_calls %}{{ c }}"
        "{% endfor %}{% endif %}[{{ m.content }}]{{ m | list }}{% endfor %}"
    )
    message = {"role": "assistant", "content": content}
    shown = f"[{content or ''}]['role', 'content']"
    assert render(template, [message | empty]) == render(template, [message]) == shown


def test_beside_tool_calls_there_may_be_no_content() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert render("{{ messages[0].content is none }}", [message]) == "True"


def test_an_empty_list_of_tools_is_none() -> None:
    chat = ChatTemplates({"default": "plain{{ tools }}", "tool_use": "tools"}, {})
    assert chat.render(MESSAGES, tools=[]) == "plainNone"
