"""Eight bits for a whole model: smoothing changes no product, and the rounding costs little."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from engine import LLM, SamplingParams
from engine.config import EngineConfig, ModelConfig, RopeConfig
from engine.errors import InvalidConfig
from engine.kernels.int8 import quantise_weight
from engine.models.decoder import Decoder, Layer
from engine.quantise.smooth import _run, smooth

CONFIG = ModelConfig(
    family="llama",
    vocab_size=96,
    hidden_size=64,
    intermediate_size=80,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    max_position=64,
    rms_norm_eps=1e-5,
    rope=RopeConfig(),
    tie_embeddings=True,
)
BIASED = replace(CONFIG, qkv_bias=True, output_bias=True, mlp_bias=True, tie_embeddings=False)
TEXTS = [[5, 17, 3, 88, 41, 2], [9, 9, 30, 71]]


def make(config: ModelConfig, *, loud_channel: float = 1.0) -> Decoder:
    decoder = Decoder(config)
    generator = torch.Generator().manual_seed(7)
    for name, parameter in decoder.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = 1 + 0.2 * noise if "norm" in name else 0.2 * noise
    for layer in decoder.layers:
        assert isinstance(layer, Layer)
        layer.feed_forward_norm.data[3] = loud_channel
        layer.attention_norm.data[3] = loud_channel
    decoder.finish(torch.device("cpu"))
    return decoder.eval()


@torch.inference_mode()
def logits(decoder: Decoder) -> Tensor:
    return torch.cat([decoder.logits(_run(decoder, text)) for text in TEXTS])


@pytest.mark.parametrize("config", [CONFIG, BIASED], ids=["tied", "biased"])
def test_smoothing_changes_nothing_by_itself(config: ModelConfig) -> None:
    decoder = make(config, loud_channel=40.0)
    before = logits(decoder)
    weight = decoder.layers[0].feed_forward.gate_up.weight.clone()
    smooth(decoder, TEXTS)
    assert not torch.equal(weight, decoder.layers[0].feed_forward.gate_up.weight)
    torch.testing.assert_close(logits(decoder), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("config", [CONFIG, BIASED], ids=["tied", "biased"])
def test_eight_bits_are_close(config: ModelConfig) -> None:
    exact = logits(make(config))
    decoder = make(config)
    smooth(decoder, TEXTS)
    decoder.quantise(quantise_weight)
    error = (logits(decoder) - exact).norm() / exact.norm()
    assert 0 < error < 0.05


def test_smoothing_helps_where_a_channel_is_loud() -> None:
    exact = logits(make(CONFIG, loud_channel=100.0))
    errors = []
    for smoothed in (False, True):
        decoder = make(CONFIG, loud_channel=100.0)
        if smoothed:
            smooth(decoder, TEXTS)
        decoder.quantise(quantise_weight)
        errors.append(float((logits(decoder) - exact).norm() / exact.norm()))
    assert errors[1] < 0.7 * errors[0]


@pytest.mark.slow
def test_the_embedded_model_still_knows_its_capitals() -> None:
    llm = LLM("smollm2", device="cpu", quantization="int8", kv_cache_bytes=100 * 2**20, seed=0)
    prompt = llm.tokenizer.encode_chat(
        [{"role": "user", "content": "What is the capital of France?"}]
    )
    params = SamplingParams(temperature=0, max_tokens=16)
    (answer,) = llm.generate([prompt], params, progress=False)
    assert answer.text == "The capital of France is Paris."
    assert "int8" in llm.info.description


@pytest.mark.slow
@pytest.mark.parametrize("group_size", [None, 32, 64])
def test_the_embedded_model_still_makes_sense_in_four_bits(group_size: int | None) -> None:
    llm = LLM(
        "smollm2",
        device="cpu",
        quantization="int4",
        group_size=group_size,
        kv_cache_bytes=100 * 2**20,
    )
    params = SamplingParams(temperature=0, max_tokens=8, logprobs=0)
    (answer,) = llm.generate(["The capital of France is"], params, progress=False)
    assert "Paris" in answer.text
    assert "int4" in llm.info.description


def test_what_cannot_be_had_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="int8 or int4"):
        EngineConfig(quantization="int3")  # type: ignore[arg-type]
