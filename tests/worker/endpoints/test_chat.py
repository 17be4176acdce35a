"""Bodies of ``/v1/chat/completions``: what they mean, and each wrong parameter by name."""

from typing import Any

import pytest

from engine.params import SamplingParams
from worker.endpoints.chat import parse
from worker.endpoints.endpoint import ChatPrompt
from worker.errors import BodyError

HELLO = [{"role": "user", "content": "hello"}]


def _chat(**options: Any) -> dict[str, Any]:
    return {"model": "m", "messages": HELLO, **options}


def test_defaults_leave_the_length_to_the_planner() -> None:
    parsed = parse(_chat())
    assert parsed.prompts == (ChatPrompt(HELLO),)
    assert parsed.params == SamplingParams(max_tokens=None)


def test_template_arguments_are_scalars_under_names_of_their_own() -> None:
    given = {"enable_thinking": False, "budget": 7, "scale": 0.5, "style": "terse", "x": None}
    (prompt,) = parse(_chat(chat_template_kwargs=given)).prompts
    assert prompt == ChatPrompt(HELLO, given)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("messages", 1),
        ("template", "{% for i in range(9) %}x{% endfor %}"),
        ("chat_template", "x"),
        ("tools", None),
        ("documents", None),
        ("add_generation_prompt", False),
        ("self", 1),
        ("raise_exception", 1),
        ("strftime_now", 1),
        ("bos_token", ""),
        ("eos_token", ""),
        ("anything", []),
        ("anything", {"a": 1}),
    ],
)
def test_template_arguments_replace_nothing_of_the_servers(name: str, value: Any) -> None:
    with pytest.raises(BodyError) as caught:
        parse(_chat(chat_template_kwargs={name: value}))
    assert caught.value.param == f"chat_template_kwargs.{name}"


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"stop": "x" * 1_025}, "stop"),
        ({"stop": ["x", "x" * 1_025]}, "stop[1]"),
        ({"logit_bias": {str(i): 1 for i in range(1_025)}}, "logit_bias"),
    ],
)
def test_options_have_limits(options: dict[str, Any], param: str) -> None:
    with pytest.raises(BodyError) as caught:
        parse(_chat(**options))
    assert (caught.value.param, caught.value.code) == (param, "invalid_value")
    parse(_chat(stop=["x" * 1_024], logit_bias={str(i): 1 for i in range(1_024)}))


def test_every_sampling_option_is_read() -> None:
    params = parse(
        _chat(
            max_completion_tokens=7,
            max_tokens=9,
            temperature=0,
            top_p=0.5,
            n=2.0,
            stop=["a", "b"],
            seed=3,
            presence_penalty=1,
            frequency_penalty=-1,
            logit_bias={"5": -100},
            logprobs=True,
            top_logprobs=4,
            top_k=11,
            min_p=0.1,
            repetition_penalty=1.1,
            min_tokens=2,
            ignore_eos=True,
            stop_token_ids=[1, 2],
            skip_special_tokens=False,
            include_stop_str_in_output=True,
            user="someone",
            metadata={"a": "b"},
            response_format={"type": "text"},
            stream=False,
            tools=[],
            tool_choice="none",
        )
    ).params
    assert params == SamplingParams(
        max_tokens=7,
        temperature=0.0,
        top_p=0.5,
        n=2,
        stop=("a", "b"),
        seed=3,
        presence_penalty=1.0,
        frequency_penalty=-1.0,
        logit_bias={5: -100.0},
        logprobs=4,
        top_k=11,
        min_p=0.1,
        repetition_penalty=1.1,
        min_tokens=2,
        ignore_eos=True,
        stop_token_ids=(1, 2),
        skip_special_tokens=False,
        include_stop_str_in_output=True,
    )


def test_null_means_not_set() -> None:
    options = dict.fromkeys(["temperature", "stop", "max_tokens", "logprobs", "seed", "tools"])
    assert parse(_chat(**options)).params == SamplingParams(max_tokens=None)


def test_text_content_and_the_developer_role_become_plain_messages() -> None:
    messages = [
        {"role": "developer", "content": [{"type": "text", "text": "be"}]},
        {"role": "assistant", "content": None},
        {
            "role": "user",
            "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}],
        },
    ]
    (prompt,) = parse({"messages": messages}).prompts
    assert isinstance(prompt, ChatPrompt)
    assert prompt.messages == [
        {"role": "system", "content": "be"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "one\ntwo"},
    ]


@pytest.mark.parametrize(
    ("options", "code", "param"),
    [
        ({"temprature": 1}, "unknown_parameter", "temprature"),
        ({"temperature": "hot"}, "invalid_type", "temperature"),
        ({"temperature": True}, "invalid_type", "temperature"),
        ({"temperature": 3}, "invalid_value", "temperature"),
        ({"top_p": -0.1}, "invalid_value", "top_p"),
        ({"top_p": "0"}, "invalid_type", "top_p"),
        ({"stream": 0}, "unsupported_parameter", "stream"),
        ({"stream_options": {}}, "unsupported_parameter", "stream_options"),
        ({"tools": {}}, "unsupported_parameter", "tools"),
        ({"n": 0}, "invalid_value", "n"),
        ({"n": 1.5}, "invalid_type", "n"),
        ({"max_tokens": 0}, "invalid_value", "max_tokens"),
        ({"max_completion_tokens": 0}, "invalid_value", "max_completion_tokens"),
        ({"stop": [1]}, "invalid_type", "stop[0]"),
        ({"stop": [""]}, "invalid_value", "stop"),
        ({"logit_bias": {"x": 1}}, "invalid_request", "logit_bias"),
        ({"logit_bias": {"1": 101}}, "invalid_value", "logit_bias"),
        ({"logprobs": True, "top_logprobs": 21}, "invalid_value", "top_logprobs"),
        ({"top_logprobs": 2}, "invalid_value", "top_logprobs"),
        ({"logprobs": 1}, "invalid_type", "logprobs"),
        ({"stream": True}, "unsupported_parameter", "stream"),
        ({"tools": [{"type": "function"}]}, "unsupported_parameter", "tools"),
        ({"response_format": {"type": "json_object"}}, "unsupported_parameter", "response_format"),
        ({"messages": None}, "missing_required_parameter", "messages"),
        ({"messages": []}, "empty_array", "messages"),
        ({"messages": "hi"}, "invalid_type", "messages"),
        ({"messages": ["hi"]}, "invalid_type", "messages[0]"),
        ({"messages": [{"content": "x"}]}, "missing_required_parameter", "messages[0].role"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "invalid_value", "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "missing_required_parameter", "messages[0].content"),
        ({"messages": [{"role": "user", "content": 1}]}, "invalid_type", "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "invalid_value",
            "messages[0].content[0].type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "missing_required_parameter",
            "messages[0].content[0].text",
        ),
    ],
)
def test_wrong_parameters(options: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(BodyError) as caught:
        parse(_chat(**options))
    assert (caught.value.code, caught.value.param) == (code, param)


def test_a_prompt_of_the_other_endpoint_is_named() -> None:
    with pytest.raises(BodyError) as caught:
        parse({"prompt": "Name a colour."})
    assert (caught.value.code, caught.value.param) == ("missing_required_parameter", "messages")
    assert str(caught.value) == (
        "Missing required parameter: 'messages'. The endpoint is /v1/chat/completions, "
        "while the body holds 'prompt'."
    )


def test_a_type_error_says_what_was_expected_and_what_came() -> None:
    with pytest.raises(BodyError, match="expected a number, but got a string instead"):
        parse(_chat(temperature="hot"))
