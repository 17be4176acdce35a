"""``best_of``: more answers are generated than given, and the best come first."""

from statistics import fmean
from typing import Any

import pytest
import transformers

from engine.core import EngineCore
from engine.errors import InvalidRequest
from engine.params import SamplingParams
from engine.requests import Completion, Request
from oracle import TINY, make
from standin import run, start

DRAWN: dict[str, Any] = {"temperature": 1.5, "seed": 3, "max_tokens": 9, "stop_token_ids": (5, 6)}


@pytest.fixture(params=["stand-in", "cpu"], scope="module")
def core(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> EngineCore:
    model = make(transformers.LlamaConfig(**TINY))
    return start(model, tmp_path_factory.mktemp("model"), device=request.param)


def asked(core: EngineCore, **params: Any) -> Completion:
    request = Request("0", (3, 60, 11, 42), SamplingParams(**DRAWN | params))
    return run(core, [request])["0"]


def test_the_best_by_mean_log_probability_come_first(core: EngineCore) -> None:
    every = asked(core, n=6, logprobs=2).outputs
    means = [fmean(each.chosen.logprob for each in output.logprobs or ()) for output in every]
    ranked = sorted(range(6), key=lambda index: -means[index])
    assert ranked != sorted(ranked), "otherwise this shows nothing"
    best = [every[index].token_ids for index in ranked[:3]]

    for logprobs in (None, 2):
        found = asked(core, n=3, best_of=6, logprobs=logprobs)

        assert [output.token_ids for output in found.outputs] == best
        assert [output.index for output in found.outputs] == [0, 1, 2]
        assert found.completion_tokens == sum(len(output.token_ids) for output in every)
        shown = [output.logprobs is not None for output in found.outputs]
        assert shown == [logprobs is not None] * 3


def test_a_request_that_was_cancelled_is_so_whatever_its_best_answers(core: EngineCore) -> None:
    params = SamplingParams(**DRAWN | {"max_tokens": 40, "best_of": 8})
    core.add(Request("0", (3, 60, 11, 42), params))
    ended = []
    while len(core._live["0"]._ended) == 0:
        core.step()
    ended = core.cancel(["0"])
    assert [each.completion().outputs[0].finish_reason for each in ended] == ["cancelled"]


@pytest.mark.parametrize("values", [{"best_of": 0}, {"best_of": 129}, {"best_of": 2, "n": 3}])
def test_best_of_is_at_least_n(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        SamplingParams(**values)
    assert caught.value.param == "best_of"
