"""Bodies of ``/v1/completions``: what they mean, and each wrong parameter by name."""

from typing import Any

import pytest

from worker.endpoints.completions import MAX_PROMPTS, parse
from worker.endpoints.endpoint import TextPrompt, TokenPrompt
from worker.errors import BodyError


def _text(**options: Any) -> dict[str, Any]:
    return {"model": "m", "prompt": "hello", **options}


def test_defaults_are_openais() -> None:
    parsed = parse(_text())
    assert parsed.prompts == (TextPrompt("hello"),)
    assert parsed.params.max_tokens == 16


@pytest.mark.parametrize(
    ("prompt", "meant"),
    [
        ("hi", [TextPrompt("hi")]),
        (["hi"], [TextPrompt("hi")]),
        (["a", "b", "a"], [TextPrompt("a"), TextPrompt("b"), TextPrompt("a")]),
        ([1, 2.0], [TokenPrompt((1, 2))]),
        ([[1, 2]], [TokenPrompt((1, 2))]),
        ([[1], [2, 3]], [TokenPrompt((1,)), TokenPrompt((2, 3))]),
    ],
)
def test_every_form_of_prompts(prompt: Any, meant: list[object]) -> None:
    assert list(parse({"prompt": prompt}).prompts) == meant


def test_a_line_has_a_limit_of_prompts_and_of_choices() -> None:
    assert len(parse({"prompt": ["a"] * MAX_PROMPTS, "n": 2}).prompts) == MAX_PROMPTS


@pytest.mark.parametrize(
    ("options", "code", "param"),
    [
        ({"prompt": None}, "missing_required_parameter", "prompt"),
        ({"prompt": ""}, "invalid_value", "prompt"),
        ({"prompt": []}, "invalid_value", "prompt"),
        ({"prompt": [[]]}, "invalid_value", "prompt[0]"),
        ({"prompt": ["a", ""]}, "invalid_value", "prompt[1]"),
        ({"prompt": [[1], []]}, "invalid_value", "prompt[1]"),
        ({"prompt": ["a", [1]]}, "invalid_type", "prompt[1]"),
        ({"prompt": ["a", None]}, "invalid_type", "prompt[1]"),
        ({"prompt": [[1], "a"]}, "invalid_type", "prompt[1]"),
        ({"prompt": [[1], 2]}, "invalid_type", "prompt[1]"),
        ({"prompt": [1, "a"]}, "invalid_type", "prompt[1]"),
        ({"prompt": [[1], [2, True]]}, "invalid_type", "prompt[1][1]"),
        ({"prompt": [{}]}, "invalid_type", "prompt[0]"),
        ({"prompt": ["a"] * (MAX_PROMPTS + 1)}, "invalid_value", "prompt"),
        ({"prompt": ["a"] * 1_366, "n": 3}, "invalid_value", "n"),
        ({"prompt": {"a": 1}}, "invalid_type", "prompt"),
        ({"prompt": [1.5]}, "invalid_type", "prompt[0]"),
        ({"messages": []}, "unknown_parameter", "messages"),
        ({"echo": 1}, "invalid_type", "echo"),
        ({"echo": "yes"}, "invalid_type", "echo"),
        ({"max_tokens": -1}, "invalid_value", "max_tokens"),
        ({"max_tokens": 0, "min_tokens": 1}, "invalid_value", "min_tokens"),
        ({"prompt_logprobs": 1}, "unknown_parameter", "prompt_logprobs"),
        ({"suffix": 1}, "invalid_type", "suffix"),
        ({"suffix": "x", "echo": True, "logprobs": 1}, "unsupported_parameter", "echo"),
        ({"best_of": 0}, "invalid_value", "best_of"),
        ({"best_of": 129}, "invalid_value", "best_of"),
        ({"best_of": 2, "n": 3}, "invalid_value", "best_of"),
        ({"best_of": "2"}, "invalid_type", "best_of"),
        ({"best_of": 100, "prompt": ["a"] * 41}, "invalid_value", "best_of"),
        ({"logprobs": 21}, "invalid_value", "logprobs"),
        ({"logprobs": True}, "invalid_type", "logprobs"),
    ],
)
def test_wrong_parameters(options: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(BodyError) as caught:
        parse(_text(**options))
    assert (caught.value.code, caught.value.param) == (code, param)


def test_an_echo_with_logprobs_asks_for_those_of_the_prompt() -> None:
    plain = parse(_text(echo=True))
    assert (plain.echo, plain.params.prompt_logprobs) == (True, None)
    scored = parse(_text(echo=True, logprobs=0, max_tokens=0))
    assert (scored.params.prompt_logprobs, scored.params.max_tokens) == (0, 0)
    assert parse(_text(logprobs=2)).params.prompt_logprobs is None
    assert parse(_text(echo=None)).echo is False
    assert parse(_text(echo=False, logprobs=2)).params.prompt_logprobs is None


def test_messages_of_the_other_endpoint_are_named() -> None:
    with pytest.raises(BodyError, match=r"endpoint is /v1/completions, while the body holds 'mess"):
        parse({"messages": [{"role": "user", "content": "Hi"}]})
