"""From a template's shape and a row to a request's body."""

from typing import Any

import msgspec
import pytest

from storage.datasets.templates.limits import TemplateLimits
from storage.datasets.templates.row_template import RowTemplate, Spec
from storage.endpoints import CHAT_COMPLETIONS as CHAT
from storage.endpoints import COMPLETIONS
from storage.errors import DatasetError, RowFault, TemplateError

ROW: dict[str, Any] = {
    "body": "the sea",
    "limit": 7,
    "heat": msgspec.Raw(b"0.50"),
    "null": None,
    "on": True,
    "chat": [{"role": "user", "content": "Hi"}],
    "schema": {"type": "object", "properties": {"x": {"type": "integer"}}},
}


def said(text: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize(
    ("spec", "body"),
    [
        ("About {{ body }}", {"messages": said("About the sea")}),
        ("{{ body }}", {"messages": said("the sea")}),
        ("{{ limit }}", {"messages": said("7")}),
        ("{{ schema.type }}{{ null }}", {"messages": said("object")}),
        ("{{ chat }}", {"messages": said('[{"role":"user","content":"Hi"}]')}),
        ({"prompt": "About {{ body }}", "n": 2}, {"messages": said("About the sea"), "n": 2}),
        (
            [{"role": "system", "content": "Brief."}, {"role": "user", "content": "{{ body }}"}],
            {"messages": [{"role": "system", "content": "Brief."}, *said("the sea")]},
        ),
        ({"messages": said("{{ limit }}")}, {"messages": said("7")}),
        ({"messages": said("{{ heat }} {{ on }}")}, {"messages": said("0.50 true")}),
        ({"messages": "{{ chat }}"}, {"messages": ROW["chat"]}),
        ({"messages": [*said("a"), "{{ chat[0] }}"]}, {"messages": [*said("a"), *ROW["chat"]]}),
        (
            {"messages": said([{"type": "text", "text": "On {{ body }}"}])},
            {"messages": said([{"type": "text", "text": "On the sea"}])},
        ),
        (
            {
                "body": {
                    "model": "m-{{ limit }}",
                    "messages": said("{{ body }}"),
                    "max_tokens": "{{ limit }}",
                    "temperature": "{{ heat }}",
                    "seed": "{{ null }}",
                    "top_p": "{{ absent }}",
                    "stop": ["{{ body }}", "{{ null }}", "."],
                    "logprobs": "{{ on }}",
                    "response_format": {
                        "type": "json_schema",
                        "json_schema": {"schema": "{{ schema }}"},
                    },
                    "user": None,
                }
            },
            {
                "model": "m-7",
                "messages": said("the sea"),
                "max_tokens": 7,
                "temperature": msgspec.Raw(b"0.50"),
                "stop": ["the sea", "."],
                "logprobs": True,
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"schema": ROW["schema"]},
                },
                "user": None,
            },
        ),
    ],
)
def test_the_shape_tells_what_a_template_makes(spec: Spec, body: dict[str, Any]) -> None:
    made = RowTemplate.parse(spec).body(ROW, CHAT)
    assert msgspec.json.decode(msgspec.json.encode(made)) == msgspec.json.decode(
        msgspec.json.encode(body)
    )


def test_a_body_has_the_digits_of_its_numbers() -> None:
    made = RowTemplate.parse({"prompt": "{{ body }}", "temperature": "{{ heat }}"})
    body = made.body(ROW, COMPLETIONS)
    assert msgspec.json.encode(body) == b'{"prompt":"the sea","temperature":0.50}'


@pytest.mark.parametrize(
    ("spec", "body"),
    [
        ("About {{ body }}", {"prompt": "About the sea"}),
        ("{{ limit }}", {"prompt": "7"}),
        ({"prompt": ["{{ body }}", "x"]}, {"prompt": ["the sea", "x"]}),
        (
            {"body": {"prompt": "{{ body }}", "max_tokens": 3}},
            {"prompt": "the sea", "max_tokens": 3},
        ),
    ],
)
def test_completions_get_the_prompt(spec: Spec, body: dict[str, Any]) -> None:
    template = RowTemplate.parse(spec)
    template.check_endpoint(COMPLETIONS)
    assert template.body(ROW, COMPLETIONS) == body


def test_messages_do_not_fit_completions() -> None:
    template = RowTemplate.parse(said("{{ body }}"))
    template.check_endpoint(CHAT)
    with pytest.raises(TemplateError, match="write a text"):
        template.check_endpoint(COMPLETIONS)


@pytest.mark.parametrize("spec", ["{{ null }}", {"prompt": "{{ absent }}"}])
def test_a_row_without_a_prompt_is_told(spec: Spec) -> None:
    with pytest.raises(RowFault, match="gives no prompt"):
        RowTemplate.parse(spec).body(ROW, CHAT)


def test_rows_do_not_see_each_other() -> None:
    template = RowTemplate.parse(
        {"messages": said("{{ a }}"), "stop": ["{{ b }}", "x"], "seed": "{{ c }}"}
    )
    first = template.body({"a": "1", "b": "p", "c": 1}, CHAT)
    second = template.body({"a": "2"}, CHAT)
    assert first == {"messages": said("1"), "stop": ["p", "x"], "seed": 1}
    assert second == {"messages": said("2"), "stop": ["x"]}


@pytest.mark.parametrize(
    ("spec", "param", "says"),
    [
        ([], ".messages", "a list of objects with role and content"),
        (["Hi"], ".messages[0]", "an object with role and content"),
        ([{"content": "x"}], ".messages[0]", "an object with role and content"),
        ({"messages": "Hi"}, ".messages", "a list of objects"),
        ({"max_tokens": 3}, "", "a text, a list of messages, or an object"),
        ({"body": {"n": 1}}, ".body", "a text, a list of messages, or an object"),
        ("", ".prompt", "it is empty"),
        ({"prompt": " \n"}, ".prompt", "it is empty"),
        (7, "", "a text, a list of messages, or an object"),
        (None, "", "a text, a list of messages, or an object"),
        ({"prompt": "{{"}, ".prompt", "line 1"),
        ({"body": {"prompt": "x", "stop": ["{{ y|z }}"]}}, ".body.stop[0]", "no filter 'z'"),
        ({"prompt": "x", "seed": float("nan")}, ".seed", "no value of JSON"),
        ({"prompt": "x", "seed": b"1"}, ".seed", "no value of JSON"),
        ({"prompt": "x", 1: 2}, "", "the names in an object are texts"),
        ({"prompt": "\udcff"}, ".prompt", "half of a surrogate pair"),
    ],
)
def test_another_shape_is_refused_by_name(spec: Any, param: str, says: str) -> None:
    with pytest.raises(TemplateError) as caught:
        RowTemplate.parse(spec)
    assert caught.value.param == f"tidemill.template{param}"
    assert says in str(caught.value)


def test_unknown_columns_are_one_error_with_the_nearest_names() -> None:
    template = RowTemplate.parse(said("{{ boddy }} {{ TITLE }} {{ q }} {{ id }}"))
    with pytest.raises(TemplateError) as caught:
        template.check(["id", "body", "title"])
    assert caught.value.param == "tidemill.template.messages[0].content"
    text = str(caught.value)
    assert "'boddy'. Did you mean 'body'?" in text
    assert "'TITLE'. Did you mean 'title'?" in text
    assert "'q'." in text
    assert text.endswith("The columns are 'id', 'body', 'title'.")
    template.check(["id", "boddy", "TITLE", "q"])


def test_unknown_columns_are_told_in_short_and_soon_among_very_many() -> None:
    names = [f"{n}{'x' * 300}" for n in range(3_000)]
    with pytest.raises(TemplateError) as caught:
        RowTemplate.parse("".join(f"{{{{ c{n} }}}}" for n in range(500))).check(names)
    assert len(str(caught.value)) < 2_000


def test_all_texts_of_a_row_count_together() -> None:
    limits = TemplateLimits(max_text=100, max_work=1_000)
    template = RowTemplate.parse({"prompt": ["{{ x }}"] * 20}, limits=limits)
    assert len(template.body({"x": "y" * 40}, COMPLETIONS)["prompt"]) == 20
    with pytest.raises(RowFault, match="too much work"):
        template.body({"x": "y" * 60}, COMPLETIONS)
    with pytest.raises(RowFault, match="more than 100 characters"):
        RowTemplate.parse("{{ x }}{{ x }}", limits=limits).body({"x": "y" * 60}, CHAT)


def test_errors_are_those_of_datasets() -> None:
    assert issubclass(TemplateError, DatasetError)
    assert issubclass(RowFault, DatasetError)
