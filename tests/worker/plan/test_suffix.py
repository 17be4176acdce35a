"""``suffix``: prompts that are filled in the middle, and models that cannot."""

from collections.abc import Sequence
from typing import Any

import pytest

from engine.params import SamplingParams
from worker.models.tokenizers import TextModel, TextModels
from worker.plan.envelope import InputLine
from worker.plan.rows import PlannedLine, unpack_params, unpack_tokens
from worker.plan.tokenize import LineTokenizer
from worker.problems import Problem

TEXT = "/v1/completions"


class Fill:
    """Marks the parts by 900, 901 and 902; an output ends at 903."""

    ends = (903,)
    mark = "~"

    def arrange(self, before: Sequence[int], after: Sequence[int]) -> list[int]:
        return [900, *before, 901, *after, 902]


@pytest.fixture
def coder(models: TextModels) -> TextModels:
    tokenizer: Any = models.get("smollm2").tokenizer
    filling = type("FillingTokenizer", (type(tokenizer),), {"fill_tokens": Fill()})()
    return TextModels({"coder": ""}, lambda name, source: TextModel(name, filling, 64, 1_000))


def planned(models: TextModels, model: str = "coder", **body: Any) -> PlannedLine | Problem:
    line = InputLine(1, "id", model, body)
    (result,) = LineTokenizer(TEXT, models, default_max_tokens=20).tokenize([line])
    return result


def word(text: str) -> int:
    return 2 + sum(text.encode()) % 900


def read(line: PlannedLine | Problem) -> tuple[list[int], SamplingParams]:
    assert isinstance(line, PlannedLine), line
    return unpack_tokens(line.tokens).tolist(), unpack_params(line.params)


def test_a_suffix_is_put_behind_each_prompt_with_the_models_tokens(coder: TextModels) -> None:
    ids, params = read(planned(coder, prompt="a b", suffix="c", stop_token_ids=[5]))
    assert ids == [900, word("a"), word("b"), 901, word("~c"), 902]
    assert params.stop_token_ids == (5, 903)
    ids, params = read(planned(coder, prompt=[[5], [6, 7]], suffix="c", ignore_eos=True))
    assert ids == [900, 5, 901, word("~c"), 902, 900, 6, 7, 901, word("~c"), 902]
    assert params.stop_token_ids == ()
    ids, _ = read(planned(coder, prompt="", suffix="c"))
    assert ids == [900, 901, word("~c"), 902]


@pytest.mark.parametrize("suffix", [None, ""])
def test_an_empty_suffix_is_none(coder: TextModels, suffix: str | None) -> None:
    ids, params = read(planned(coder, prompt="a", suffix=suffix))
    assert ids == [1, word("a")]
    assert params.stop_token_ids == ()


def test_an_echo_is_the_text_before_alone(coder: TextModels) -> None:
    line = planned(coder, prompt=["a", "b"], suffix="c", echo=True)
    assert isinstance(line, PlannedLine)
    assert line.texts == ("a", "b")


@pytest.mark.parametrize(
    ("body", "model", "code", "param"),
    [
        ({"prompt": "a"}, "smollm2", "unsupported_parameter", "suffix"),
        ({"prompt": [1]}, "smollm2", "unsupported_parameter", "suffix"),
        ({"prompt": "w " * 50}, "coder", "context_length_exceeded", "prompt"),
        ({"prompt": ["w", "w " * 50]}, "coder", "context_length_exceeded", "prompt[1]"),
        ({"prompt": []}, "coder", "invalid_value", "prompt"),
    ],
)
def test_what_is_wrong(
    coder: TextModels,
    models: TextModels,
    body: dict[str, Any],
    model: str,
    code: str,
    param: str,
) -> None:
    problem = planned(coder if model == "coder" else models, model, suffix="c", **body)
    assert isinstance(problem, Problem)
    assert (problem.code, problem.param) == (code, param)
