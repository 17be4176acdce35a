"""In a step with prompts the last layer computes the sampled tokens alone, and nothing differs."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import transformers

from engine.executors.device import runner
from engine.executors.device.buffers import Buffers
from engine.executors.device.decoder import DeviceDecoder
from engine.requests import Completion
from oracle import Model, make
from standin import ask, device_of, greedy, run, start

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:transformers"),
]

SHAPE: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
LLAMA = transformers.LlamaConfig(**SHAPE)
ONE_LAYER = transformers.LlamaConfig(**SHAPE | {"num_hidden_layers": 1})
MISTRAL = transformers.MistralConfig(**SHAPE, sliding_window=7)
PROMPTS = [[(7 * i + n) % 97 for n in range(length)] for i, length in enumerate((30, 3, 21, 1, 12))]


@dataclass
class Noted:
    """Rows that each layer attended for, and that were narrowed to."""

    attended: list[tuple[int, int]] = field(default_factory=list)
    narrowed: list[tuple[int, int]] = field(default_factory=list)


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> Noted:
    found = Noted()
    attend, narrow = DeviceDecoder.attend, DeviceDecoder.narrow

    def noting(self: DeviceDecoder, index: int, buffers: Buffers, *others: Any) -> None:
        found.attended.append((index, len(buffers.queries)))
        attend(self, index, buffers, *others)

    def narrowing(self: DeviceDecoder, buffers: Buffers, few: Buffers, rows: Any) -> None:
        found.narrowed.append((len(buffers.queries), len(few.queries)))
        narrow(self, buffers, few, rows)

    monkeypatch.setattr(DeviceDecoder, "attend", noting)
    monkeypatch.setattr(DeviceDecoder, "narrow", narrowing)
    return found


def outputs(found: dict[str, Completion]) -> list[Any]:
    return [found[name].outputs[0] for name in sorted(found)]


@pytest.mark.parametrize("config", [LLAMA, ONE_LAYER], ids=["two layers", "one layer"])
def test_a_prompt_has_one_row_in_the_last_layer(
    config: transformers.PreTrainedConfig, noted: Noted, tmp_path: Path
) -> None:
    model = make(config)
    core = start(model, tmp_path, warm_up=False)
    prompt = PROMPTS[0]
    found = run(core, ask([prompt], max_tokens=3))
    assert list(found["0"].outputs[0].token_ids) == greedy(model, prompt, 3)
    assert noted.narrowed == [(32, 1)]
    last = config.num_hidden_layers - 1
    first = noted.attended[: last + 1]
    assert first == [(index, 1 if index == last else 32) for index in range(last + 1)]


def test_a_chunk_that_samples_nothing_has_a_row_of_padding(noted: Noted, tmp_path: Path) -> None:
    model = make(LLAMA)
    core = start(model, tmp_path, max_batch_tokens=8, warm_up=False)
    found = run(core, ask([PROMPTS[0]], max_tokens=4))
    assert list(found["0"].outputs[0].token_ids) == greedy(model, PROMPTS[0], 4)
    assert [rows for _, rows in noted.narrowed] == [1] * 4


def test_decodes_beside_a_short_prompt_are_not_narrowed(noted: Noted, tmp_path: Path) -> None:
    model = make(LLAMA)
    core = start(model, tmp_path, warm_up=False)
    first = ask(PROMPTS[:4], max_tokens=12)
    for request in first:
        core.add(request)
    for _ in range(5):  # the prompts' step is run by then
        core.step()
    assert noted.narrowed
    noted.narrowed.clear()
    late = ask([[5, 6]], max_tokens=3)[0]
    core.add(type(late)("late", late.prompt, late.params))
    found: dict[str, Completion] = {}
    while core.has_work:
        found |= {each.request.id: each.completion() for each in core.step()}
    assert noted.narrowed == [], "six tokens of which five are sampled"
    assert list(found["late"].outputs[0].token_ids) == greedy(model, [5, 6], 3)
    for index, prompt in enumerate(PROMPTS[:4]):
        assert list(found[str(index)].outputs[0].token_ids) == greedy(model, prompt, 12)


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        (LLAMA, {"quantization": "int8", "kv_cache_dtype": "int8"}),
        (LLAMA, {"quantization": "fp8", "kv_cache_dtype": "fp8", "max_batch_tokens": 9}),
        (LLAMA, {"graphs": False, "chunked_prefill": False}),
        (MISTRAL, {"max_batch_tokens": 11}),
    ],
    ids=lambda value: value.model_type if hasattr(value, "model_type") else str(value),
)
def test_log_probabilities_are_those_of_steps_that_compute_every_row(
    config: transformers.PreTrainedConfig,
    settings: dict[str, Any],
    noted: Noted,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    model: Model = make(config)
    asked = [[1] * 17 + prompt for prompt in PROMPTS]  # prefixes in common, from the cache too

    def answered() -> list[Any]:
        core = start(model, tmp_path, warm_up=False, **settings)
        found = outputs(run(core, ask(asked, max_tokens=6, logprobs=2)))
        assert (device_of(core).replayed > 0) == settings.get("graphs", True)
        return found

    few = answered()
    assert noted.narrowed
    noted.narrowed.clear()
    monkeypatch.setattr(runner, "_FEWEST_TOKENS", 10**6)
    every = answered()
    assert noted.narrowed == []
    for one, other in zip(few, every, strict=True):
        assert one.token_ids == other.token_ids
        for a, b in zip(one.logprobs, other.logprobs, strict=True):
            assert a.chosen.logprob == pytest.approx(b.chosen.logprob, abs=1e-4)
