"""A parameter's value has the JSON type that the API names: no string, no boolean for a number."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from engine.kernels.draws import DRAW
from engine.kernels.reference.sampling import draw
from worker.endpoints import chat, completions
from worker.endpoints.options import SAMPLING
from worker.endpoints.values import boolean, integer, nucleus, number
from worker.errors import BodyError

BODIES: dict[ModuleType, dict[str, Any]] = {
    chat: {"messages": [{"role": "user", "content": "hello"}]},
    completions: {"prompt": "hello"},
}
WRONG: dict[Any, tuple[Any, ...]] = {
    integer: (True, False, "1", 1.5, [1], {}),
    number: (True, False, "1", "", [1], {}),
    nucleus: (True, False, "0", [0], {}),
    boolean: (0, 1, "true", "", [], {}),
}
CASES = [
    (name, value) for name, reader in SAMPLING.items() if reader in WRONG for value in WRONG[reader]
]


@pytest.mark.parametrize("endpoint", BODIES, ids=lambda module: module.__name__)
@pytest.mark.parametrize(("name", "value"), CASES)
def test_a_value_of_another_type_is_refused(endpoint: Any, name: str, value: Any) -> None:
    with pytest.raises(BodyError) as caught:
        endpoint.parse({**BODIES[endpoint], name: value})
    assert (caught.value.code, caught.value.param) == ("invalid_type", name)


@pytest.mark.parametrize(
    ("endpoint", "name", "value"),
    [
        (completions, "logprobs", True),
        (completions, "best_of", True),
        (completions, "best_of", "1"),
        (completions, "echo", 0),
        (completions, "stream", 0),
        (completions, "stop_token_ids", [True]),
        (completions, "prompt", [True]),
        (completions, "prompt", True),
        (completions, "logit_bias", {"1": True}),
        (completions, "logit_bias", {"1": "2"}),
        (chat, "logprobs", 1),
        (chat, "logprobs", "true"),
        (chat, "top_logprobs", True),
        (chat, "max_completion_tokens", True),
        (chat, "max_completion_tokens", "7"),
        (chat, "stream", 0.0),
    ],
)
def test_values_of_single_endpoints_too(endpoint: Any, name: str, value: Any) -> None:
    with pytest.raises(BodyError) as caught:
        endpoint.parse({**BODIES[endpoint], name: value})
    assert str(caught.value.param).startswith(name)


@pytest.mark.parametrize("value", [0, 0.0, -0.0])
def test_a_top_p_of_zero_keeps_the_most_probable_token_alone(value: float) -> None:
    params = chat.parse({**BODIES[chat], "top_p": value}).params
    logits = torch.tensor([[1.0, 1.001, 0.999] + [1.0] * 200_000]).repeat(4, 1)
    uniform = np.linspace(0, 1, 4, endpoint=False)
    draws = np.array([(1.0, params.top_p, 0.0, each, 0) for each in uniform], dtype=DRAW)
    assert set(draw(logits, draws).tolist()) == {1}
