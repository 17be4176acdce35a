"""Bodies of ``/v1/completions``: what they mean, and each wrong parameter by name."""

from typing import Any

import pytest

from worker.endpoints.completions import parse
from worker.endpoints.endpoint import TextPrompt, TokenPrompt
from worker.errors import BodyError


def _text(**options: Any) -> dict[str, Any]:
    return {"model": "m", "prompt": "hello", **options}


def test_defaults_are_openais() -> None:
    parsed = parse(_text())
    assert parsed.prompt == TextPrompt("hello")
    assert parsed.params.max_tokens == 16


@pytest.mark.parametrize(
    ("prompt", "meant"),
    [
        ("hi", TextPrompt("hi")),
        (["hi"], TextPrompt("hi")),
        ([1, 2], TokenPrompt((1, 2))),
        ([[1, 2]], TokenPrompt((1, 2))),
    ],
)
def test_forms_of_one_prompt(prompt: Any, meant: object) -> None:
    assert parse({"prompt": prompt}).prompt == meant


@pytest.mark.parametrize(
    ("options", "code", "param"),
    [
        ({"prompt": None}, "missing_required_parameter", "prompt"),
        ({"prompt": ""}, "invalid_value", "prompt"),
        ({"prompt": []}, "invalid_value", "prompt"),
        ({"prompt": ["a", "b"]}, "invalid_value", "prompt"),
        ({"prompt": [[1], [2]]}, "invalid_value", "prompt"),
        ({"prompt": {"a": 1}}, "invalid_type", "prompt"),
        ({"prompt": [1.5]}, "invalid_type", "prompt[0]"),
        ({"messages": []}, "unknown_parameter", "messages"),
        ({"echo": True}, "unsupported_parameter", "echo"),
        ({"suffix": "x"}, "unsupported_parameter", "suffix"),
        ({"best_of": 3}, "unsupported_parameter", "best_of"),
        ({"logprobs": 21}, "invalid_value", "logprobs"),
        ({"logprobs": True}, "invalid_type", "logprobs"),
    ],
)
def test_wrong_parameters(options: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(BodyError) as caught:
        parse(_text(**options))
    assert (caught.value.code, caught.value.param) == (code, param)


def test_messages_of_the_other_endpoint_are_named() -> None:
    with pytest.raises(BodyError, match=r"endpoint is /v1/completions, while the body holds 'mess"):
        parse({"messages": [{"role": "user", "content": "Hi"}]})
