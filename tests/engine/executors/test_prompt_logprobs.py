"""Log-probabilities of prompts equal those that torch computes directly, however they come."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from engine.core import EngineCore
from engine.executors import choose
from engine.kernels.reference.backend import ReferenceBackend
from engine.params import SamplingParams
from engine.requests import Completion, Request
from engine.scheduler.prompt_scores import PromptScores
from engine.scheduler.step import Scoring, TokenScores
from native import needs_kernels
from oracle import TINY, Model, make
from standin import run, start

PATHS = ["stand-in", pytest.param("native", marks=needs_kernels), "torch"]
LONG = 37


@pytest.fixture(scope="module")
def model() -> Model:
    return make(transformers.LlamaConfig(**TINY))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the model is saved once."""
    return tmp_path_factory.mktemp("model")


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "torch":
        monkeypatch.setattr(choose, "backends", lambda *_: (ReferenceBackend(),))
    found: str = request.param
    return found


def begin(model: Model, folder: Path, path: str, **settings: Any) -> EngineCore:
    device = "stand-in" if path == "stand-in" else "cpu"
    size = 16 if path == "native" else 4
    core = start(model, folder, **{"device": device, "block_size": size} | settings)
    kernels = {"stand-in": "stand-in", "native": "native", "torch": "reference"}
    assert core.info.kernels == kernels[path]
    return core


def prompt(length: int, seed: int = 1) -> tuple[int, ...]:
    source = random.Random(seed)
    return tuple(source.randrange(64) for _ in range(length))


def request(name: str, ids: Sequence[int], **params: Any) -> Request:
    settings = {"temperature": 0.0, "ignore_eos": True, "max_tokens": 5, "prompt_logprobs": 3}
    return Request(name, tuple(ids), SamplingParams(**settings | params))


@torch.no_grad()
def expect(model: Model, completion: Completion, top: int = 3) -> None:
    ids = completion.prompt_token_ids
    expected = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    found = completion.prompt_logprobs
    assert found is not None
    assert len(found) == len(ids)
    assert found[0] is None
    for place, position in enumerate(found[1:]):
        assert position is not None
        assert position.chosen.token_id == ids[place + 1]
        row = expected[place]
        assert position.chosen.logprob == pytest.approx(float(row[ids[place + 1]]), abs=2e-3)
        best = row.topk(top)
        assert [each.token_id for each in position.top] == best.indices.tolist()
        values = [each.logprob for each in position.top]
        assert values == pytest.approx(best.values.tolist(), abs=2e-3)


@torch.no_grad()
def expect_greedy(model: Model, completion: Completion) -> None:
    ids, (output,) = completion.prompt_token_ids, completion.outputs
    logits = model(torch.tensor([ids + output.token_ids])).logits[0]
    assert logits.argmax(-1)[len(ids) - 1 : -1].tolist() == list(output.token_ids)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_batch_tokens": 7},
        {"chunked_prefill": False},
    ],
    ids=str,
)
def test_whole_or_in_chunks_beside_others(
    model: Model, path: str, folder: Path, settings: dict[str, Any]
) -> None:
    core = begin(model, folder, path, **settings)
    asked = [
        request("plain", prompt(20, 2), prompt_logprobs=None),
        request("long", prompt(LONG)),
        request("one token", prompt(1)),
        request("two", prompt(2)),
        request("none beside", prompt(11, 3), prompt_logprobs=0),
        request("drawn", prompt(9, 4), temperature=1.0, logprobs=1, seed=1),
    ]
    found = run(core, asked)
    assert found["plain"].prompt_logprobs is None
    for each in asked[1:]:
        expect(model, found[each.id], each.params.prompt_logprobs or 0)
    for each in asked[:-1]:  # what is scored is not in the way of what is sampled
        expect_greedy(model, found[each.id])


def test_what_is_cached_is_computed_again_and_shared_by_the_other_outputs(
    model: Model, path: str, folder: Path
) -> None:
    core = begin(model, folder, path)
    ids = prompt(LONG)
    run(core, [request("before", ids, prompt_logprobs=None)])
    found = run(
        core, [request("n", ids, n=3), request("again", ids), request("m", ids, max_tokens=1)]
    )
    for completion in found.values():
        expect(model, completion)
        assert completion.cached_tokens == 0
    assert len(found["n"].outputs) == 3
    after = run(core, [request("after", ids, prompt_logprobs=None)])["after"]
    assert after.cached_tokens == LONG // core.info.block_size * core.info.block_size


def test_a_prompt_alone(model: Model, path: str, folder: Path) -> None:
    core = begin(model, folder, path)
    full = prompt(64, 5)  # the whole context: nothing has to fit behind it
    asked = [
        request("full", full, max_tokens=0),
        request("n", prompt(6), max_tokens=0, n=2, best_of=3, logprobs=1),
        request("not scored", prompt(6), max_tokens=0, prompt_logprobs=None),
        request("too long", prompt(65), max_tokens=0),
    ]
    found = run(core, asked)
    for name in ("full", "n"):
        expect(model, found[name])
        assert {output.token_ids for output in found[name].outputs} == {()}
        assert {output.finish_reason for output in found[name].outputs} == {"length"}
        assert found[name].text == ""
    assert found["not scored"].prompt_logprobs is None
    assert found["not scored"].completion_tokens == 0
    assert found["too long"].error_code == "context_length_exceeded"
    assert core.stats().output_tokens == 0


def test_preempted_prompts_keep_what_is_known(model: Model, path: str, folder: Path) -> None:
    token = 2 * 2 * 2 * 16 * 4  # bytes: keys and values, layers, heads, width, float32
    core = begin(
        model,
        folder,
        path,
        kv_cache_bytes=80 * token,
        output_reserve=0.0,
        max_model_len=60,
        max_batch_tokens=13,
    )
    asked = [request(str(seed), prompt(21, seed), max_tokens=15) for seed in range(5)]
    found = run(core, asked)
    assert core.stats().preemptions > 0
    for each in asked:
        expect(model, found[each.id])
        expect_greedy(model, found[each.id])


def test_a_prompt_that_is_preempted_half_way_goes_on_behind_its_last_known_block(
    model: Model, path: str, folder: Path
) -> None:
    core = begin(model, folder, path, max_batch_tokens=9, overlap=False)
    core.add(request("a", prompt(LONG)))
    core.step()
    core.step()
    (sequence,) = core._scheduler.running
    core._scheduler._preempt(sequence)
    core.step()
    assert sequence.num_computed == 18 // core.info.block_size * core.info.block_size + 9
    expect(model, run(core, [])["a"])


def test_a_step_that_fails_or_a_request_that_is_cancelled_leaves_no_wrong_scores(
    model: Model, path: str, folder: Path
) -> None:
    core = begin(model, folder, path, max_batch_tokens=8)
    core.add(request("a", prompt(LONG)))
    core.step()
    core.step()
    (gone,) = core.cancel(["a"])
    assert gone.completion().prompt_logprobs is None
    core.add(request("a", prompt(LONG, 2)))  # under the same name, in the same slot
    core.step()
    core._in_flight.clear()
    core._scheduler.abandon()
    expect(model, run(core, [])["a"])


def test_logits_are_computed_in_slices(
    model: Model, path: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("engine.executors.runner", "engine.executors.device.prompt_scores"):
        monkeypatch.setattr(f"{module}.SLICE_LOGITS", 3 * 64)
    core = begin(model, folder, path)
    found = run(core, [request("a", prompt(LONG)), request("b", prompt(3))])
    for completion in found.values():
        expect(model, completion)


def test_scores_that_are_known_are_not_asked_for_again() -> None:
    scores = PromptScores((5, 6, 7, 8), top=0)
    first = scores.scoring(0, 2)
    assert first is not None
    assert first.targets == (6, 7)
    none = np.zeros((2, 0), dtype=np.float32)
    scores.put(0, TokenScores(none.sum(1), none.astype(np.int32), none))
    assert scores.known == 2
    assert scores.scoring(0, 2) is None
    assert scores.scoring(1, 3) == Scoring((7, 8), 0)
    assert scores.scoring(2, 2) == Scoring((8,), 0)
    assert scores.scoring(3, 1) is None
