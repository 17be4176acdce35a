"""The runtime of a GPU, on a stand-in that runs everything as late as it may."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from engine.executors.device.runner import DeviceRunner
from engine.requests import Completion
from oracle import make
from standin import ask, device_of, greedy, run, start

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:transformers"),
]

SHAPE: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
FAMILIES: dict[str, transformers.PreTrainedConfig] = {
    "llama": transformers.LlamaConfig(**SHAPE),
    "llama with biases": transformers.LlamaConfig(**SHAPE, attention_bias=True, mlp_bias=True),
    "smollm": transformers.LlamaConfig(
        **SHAPE | {"hidden_size": 36, "num_attention_heads": 9, "num_key_value_heads": 3},
        tie_word_embeddings=True,
    ),
    "mistral": transformers.MistralConfig(**SHAPE, sliding_window=7),
    "qwen2": transformers.Qwen2Config(**SHAPE),
    "qwen3": transformers.Qwen3Config(**SHAPE, head_dim=16, tie_word_embeddings=True),
}
LLAMA = FAMILIES["llama"]


def prompts(count: int, *, shared: int = 0, seed: int = 1) -> list[list[int]]:
    """Prompts of 1 to 30 tokens behind a common beginning."""
    source = random.Random(seed)
    common = [source.randrange(97) for _ in range(shared)]
    return [
        common + [source.randrange(97) for _ in range(source.randint(1, 30))] for _ in range(count)
    ]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_gives_the_oracles_tokens(name: str, tmp_path: Path) -> None:
    model = make(FAMILIES[name])
    core = start(model, tmp_path)
    asked = prompts(9)

    found = run(core, ask(asked))

    for index, prompt in enumerate(asked):
        assert list(found[str(index)].outputs[0].token_ids) == greedy(model, prompt, 12)
    device = device_of(core)
    assert device.recorded > 0
    assert device.replayed > device.recorded


@pytest.mark.parametrize(
    "settings",
    [
        {"overlap": False},
        {"graphs": False},
        {"overlap": False, "graphs": False},
        {"prefix_caching": False},
        {"chunked_prefill": False},
        {"max_batch_tokens": 7},
        {"max_num_seqs": 1},
        {"batching": "static", "batch_size": 3},
        {"block_size": 1},
        {"block_size": 16},
    ],
    ids=str,
)
def test_how_it_runs_changes_no_token(settings: dict[str, Any], tmp_path: Path) -> None:
    model = make(LLAMA)
    core = start(model, tmp_path, **settings)
    asked = prompts(8, shared=9)

    found = run(core, ask(asked))

    for index, prompt in enumerate(asked):
        assert list(found[str(index)].outputs[0].token_ids) == greedy(model, prompt, 12)
    assert (device_of(core).replayed > 0) == settings.get("graphs", True)


def test_a_step_is_launched_while_the_one_ahead_of_it_runs(tmp_path: Path) -> None:
    core = start(make(LLAMA), tmp_path)
    for request in ask(prompts(2), max_tokens=20):
        core.add(request)
    core.step()
    device = device_of(core)
    before = device.waiting
    core.step()
    assert before > 0, "the first step waits, as nobody asked for its tokens"
    assert device.waiting > 0, "the second one as well"


def test_preempted_sequences_come_back_and_go_on(tmp_path: Path) -> None:
    model = make(LLAMA)
    # Room for about two of the six sequences that run at once.
    bytes_a_block = 4 * 2 * 2 * 2 * 8 * 4
    core = start(
        model, tmp_path, kv_cache_bytes=22 * bytes_a_block, output_reserve=0.0, max_model_len=60
    )
    asked = prompts(6, seed=3)

    found = run(core, ask(asked, max_tokens=25))

    assert core.stats().preemptions > 0
    for index, prompt in enumerate(asked):
        assert list(found[str(index)].outputs[0].token_ids) == greedy(model, prompt, 25)


def test_a_step_that_fails_is_given_up_and_its_sequences_start_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make(LLAMA)
    core = start(model, tmp_path)
    asked = prompts(5)
    for request in ask(asked):
        core.add(request)
    runner = core.runner
    assert isinstance(runner, DeviceRunner)
    launches = 0
    launch = DeviceRunner.launch

    def faulty(self: DeviceRunner, step: Any) -> Any:
        nonlocal launches
        launches += 1
        if launches in (3, 9):
            launch(self, step)
            raise RuntimeError("as planned")
        return launch(self, step)

    monkeypatch.setattr(DeviceRunner, "launch", faulty)
    found: dict[str, Completion] = {}
    faults = 0
    while core.has_work:
        try:
            finished = core.step()
        except RuntimeError:
            faults += 1
            continue
        found |= {each.request.id: each.completion() for each in finished}
        core.check()
    assert faults == 2
    for index, prompt in enumerate(asked):
        assert list(found[str(index)].outputs[0].token_ids) == greedy(model, prompt, 12)


def test_requests_end_at_stop_tokens_and_by_cancelling(tmp_path: Path) -> None:
    model = make(LLAMA)
    core = start(model, tmp_path)
    asked = prompts(4, seed=8)
    answers = [greedy(model, prompt, 12) for prompt in asked]
    stop = answers[0][4]
    requests = ask(asked, stop_token_ids=(stop,))
    for request in requests:
        core.add(request)
    core.step()
    core.step()
    cancelled = core.cancel(["3"])
    found = {each.request.id: each.completion() for each in cancelled}
    while core.has_work:
        found |= {each.request.id: each.completion() for each in core.step()}
    for index, answer in enumerate(answers[:3]):
        end = answer.index(stop) + 1 if stop in answer else len(answer)
        assert list(found[str(index)].outputs[0].token_ids) == answer[:end]
    assert found["3"].outputs[0].finish_reason == "cancelled"


@pytest.mark.parametrize("quantization", ["int8", "fp8", "int4"])
@pytest.mark.parametrize("cache", ["auto", "int8", "fp8"])
def test_few_bits_stay_near_the_plain_model(quantization: str, cache: str, tmp_path: Path) -> None:
    model = make(transformers.LlamaConfig(**SHAPE | {"hidden_size": 96, "intermediate_size": 192}))
    asked = prompts(4)
    core = start(model, tmp_path, quantization=quantization, kv_cache_dtype=cache)
    assert core.info.quantization == quantization
    plain = [greedy(model, prompt, 1)[0] for prompt in asked]
    found = run(core, ask(asked, max_tokens=1))
    agreeing = sum(
        found[str(index)].outputs[0].token_ids[0] == token for index, token in enumerate(plain)
    )
    assert agreeing >= (2 if quantization == "int4" else 3)


def test_the_cache_is_what_a_largest_step_leaves_free(tmp_path: Path) -> None:
    core = start(make(LLAMA), tmp_path, kv_cache_bytes=None, max_model_len=64)
    # The stand-in's memory is far above what all sequences together can fill.
    assert core.info.num_blocks == 6 * 64 // 4
    assert any("leave free" in reason for reason in core.info.reasons)
    assert core.info.kernels == "stand-in"
    torch.testing.assert_close(core.runner.placement.max_batch_tokens, 40)
