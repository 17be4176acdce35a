"""What the original accepts and what asks for nothing is accepted, on both endpoints."""

from typing import Any

import pytest
from openai.types import completion_create_params as text_params
from openai.types.chat import completion_create_params as chat_params

from engine.params import SamplingParams
from worker.endpoints import chat, completions

BODIES: dict[Any, dict[str, Any]] = {
    chat: {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5},
    completions: {"prompt": "hello", "max_tokens": 5},
}
REQUIRED = {"model", "messages", "prompt", "max_tokens"}
NULLS = [
    (module, name)
    for module, params in (
        (chat, chat_params.CompletionCreateParamsBase),
        (completions, text_params.CompletionCreateParamsBase),
    )
    for name in sorted({*params.__annotations__, "stream"} - REQUIRED)
]
HARMLESS: dict[str, Any] = {
    "user": "someone",
    "metadata": {"a": "b"},
    "store": True,
    "service_tier": "auto",
    "safety_identifier": "x",
    "prompt_cache_key": "x",
    "prompt_cache_options": {"mode": "explicit"},
    "prompt_cache_retention": "24h",
    "stream": False,
    "stream_options": None,
    "n": 1,
    "temperature": 1,
    "top_p": 1,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "logit_bias": {},
    "stop": [],
    "response_format": {"type": "text"},
}
OWN: dict[Any, dict[str, Any]] = {
    chat: {
        "logprobs": False,
        "top_logprobs": 0,
        "tool_choice": "none",
        "parallel_tool_calls": True,
        "modalities": ["text"],
        "verbosity": "medium",
    },
    completions: {"echo": False, "suffix": ""},
}


@pytest.mark.parametrize(("module", "name"), NULLS)
def test_null_is_as_if_not_given(module: Any, name: str) -> None:
    assert module.parse({**BODIES[module], name: None}) == module.parse(BODIES[module])


@pytest.mark.parametrize("module", BODIES)
def test_values_that_ask_for_nothing(module: Any) -> None:
    parsed = module.parse({"model": "m", **BODIES[module], **HARMLESS, **OWN[module]})
    assert parsed.params == SamplingParams(max_tokens=5)


def test_one_of_one_is_asked_for_where_that_is_the_default() -> None:
    params = completions.parse({**BODIES[completions], "best_of": 1}).params
    assert (params.num_generated, params.sampled_logprobs) == (1, None)
