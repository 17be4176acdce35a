"""Few bits for a whole model: rotations change no product, and the rounding costs little."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from engine import LLM, SamplingParams
from engine.cache.kv_cache import KVCache
from engine.catalog import resolve
from engine.config import EngineConfig, ModelConfig, RopeConfig
from engine.errors import InvalidConfig
from engine.executors.inputs import BlockTables, StepInputs
from engine.executors.torch_executor import TorchExecutor
from engine.gguf import GGUFFile, dequantize, has_groups, read_groups
from engine.kernels.hadamard import hadamard, hadamard_count
from engine.kernels.int8 import quantize_weight
from engine.kernels.reference.backend import ReferenceBackend
from engine.models.decoder import Decoder, Layer, Linear
from engine.models.families import load_config
from engine.models.loading import Preparation, load_model
from engine.quantize.rotate import RotatedWeights, Rotation
from engine.quantize.weights import Int8Weights
from engine.scheduler.step import Step, Work

REFERENCE = ReferenceBackend()
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
UNTIED = replace(CONFIG, tie_embeddings=False)
BIASED = replace(CONFIG, qkv_bias=True, output_bias=True, mlp_bias=True, tie_embeddings=False)
TEXTS = [[5, 17, 3, 88, 41, 2], [9, 9, 30, 71]]


def make(config: ModelConfig, *, outlier: float = 1.0) -> Decoder:
    decoder = Decoder(config, REFERENCE)
    generator = torch.Generator().manual_seed(7)
    for name, parameter in decoder.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = 1 + 0.2 * noise if "norm" in name else 0.2 * noise
    for layer in decoder.layers:
        assert isinstance(layer, Layer)
        layer.feed_forward_norm.data[3] = outlier
        layer.attention_norm.data[3] = outlier
    decoder.finish(torch.device("cpu"))
    return decoder.eval()


def logits(decoder: Decoder) -> Tensor:
    cache = KVCache.allocate(decoder.config, 16, 16, torch.device("cpu"), torch.float32)
    executor, inputs = TorchExecutor(decoder, cache), StepInputs(BlockTables(2, 4, 16), 32)
    works = (Work(i, 0, tuple(text), (i,), sample=False) for i, text in enumerate(TEXTS))
    inputs.fill(Step(tuple(works)))
    with torch.inference_mode():
        return executor.score(inputs)


def prepare(decoder: Decoder, preparation: Preparation) -> Decoder:
    """What `load_model` does, to a decoder that is there already."""
    for path, module in decoder.named_modules():
        if isinstance(module, Linear):
            assert module.weight is not None
            weight = module.weight.detach().float().clone()
            module.replace(preparation.projection(decoder, path, weight))
    preparation.rest(decoder)
    return decoder


@pytest.mark.parametrize("width", [16, 96, 576, 720, 4096])
def test_a_rotation_keeps_lengths_and_spreads_outliers(width: int) -> None:
    rotation = Rotation(width, REFERENCE)
    x = torch.randn(5, width, generator=torch.Generator().manual_seed(1))
    x[:, 3] = 500
    rotated = rotation.rows(x.clone())  # it may work in place
    torch.testing.assert_close(rotated.norm(dim=1), x.norm(dim=1))
    torch.testing.assert_close(rotated @ rotated.T, x @ x.T, rtol=1e-4, atol=1)
    assert rotated.abs().max() < 500 / 3
    again = Rotation(width, REFERENCE).rows(x.clone())
    assert torch.equal(again, rotated), "it is the same in every process"


@pytest.mark.parametrize(("width", "count"), [(1536, 32), (80, 1), (96, 2), (64, 4), (24, 1)])
def test_two_hadamard_transforms_are_nothing(width: int, count: int) -> None:
    assert hadamard_count(width) == count
    x = torch.randn(3, width, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(hadamard(REFERENCE, hadamard(REFERENCE, x, count), count), x)
    once = hadamard(REFERENCE, x, count, unit=False)
    torch.testing.assert_close(hadamard(REFERENCE, once, count, unit=False) / count, x)
    if count > 1:
        assert not torch.allclose(hadamard(REFERENCE, x, count), x)
    with pytest.raises(ValueError, match="runs of"):
        hadamard(REFERENCE, x, 64)


@pytest.mark.parametrize("config", [CONFIG, BIASED], ids=["tied", "biased"])
def test_a_rotated_decoder_is_the_same(config: ModelConfig) -> None:
    before = logits(make(config, outlier=40.0))
    rotated = prepare(make(config, outlier=40.0), RotatedWeights(config, REFERENCE))
    torch.testing.assert_close(logits(rotated), before, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("config", [CONFIG, BIASED], ids=["tied", "biased"])
def test_eight_bits_are_close(config: ModelConfig) -> None:
    exact = logits(make(config))
    error = logits(prepare(make(config), Int8Weights(config, REFERENCE))) - exact
    assert 0 < error.norm() < 0.05 * exact.norm()


def test_rotating_helps_where_a_channel_is_an_outlier() -> None:
    def with_outlier() -> Decoder:
        """One channel is large and the same for every token; weights that read it are small."""
        decoder = make(UNTIED)
        decoder.embedding.data[:, 3] = 60
        for module in decoder.modules():
            if isinstance(module, Linear) and module.inputs == 64 and module.weight is not None:
                module.weight.data[:, 3] /= 60
        return decoder

    exact = logits(with_outlier())
    plain = with_outlier()
    plain.quantize(partial(quantize_weight, REFERENCE))
    rotated = prepare(with_outlier(), Int8Weights(UNTIED, REFERENCE))
    errors = [float((logits(decoder) - exact).norm()) for decoder in (plain, rotated)]
    assert errors[1] < 0.8 * errors[0]


def test_a_files_own_groups_are_read_without_a_loss() -> None:
    files = resolve("smollm2")
    assert files.gguf is not None
    kinds = set()
    with GGUFFile(files.gguf) as gguf:
        for name in ("token_embd.weight", "blk.0.attn_q.weight", "blk.7.ffn_down.weight"):
            tensor = gguf.tensors[name]
            assert has_groups(tensor.type)
            rows, columns = tensor.shape
            found = read_groups(gguf.raw(name), tensor.type, (rows, columns))
            wide = found.values.reshape(*found.scales.shape, 32).astype(np.float32)
            again = wide * found.scales[:, :, None] + found.lows[:, :, None]
            exact = dequantize(gguf.raw(name), tensor.type, tensor.shape)
            np.testing.assert_allclose(again.reshape(exact.shape), exact, rtol=0, atol=1e-6)
            kinds.add(tensor.type.name)
    assert kinds == {"Q4_1", "Q8_0"}


def test_projections_in_a_files_groups_are_the_plain_ones() -> None:
    files = resolve("smollm2")
    config = load_config(files)
    device = torch.device("cpu")
    plain = load_model(files, config, backend=REFERENCE, device=device, dtype=torch.float32)
    kept = load_model(
        files, config, backend=REFERENCE, device=device, dtype=torch.float32, keep_groups=True
    )
    for path in ("layers.3.attention.qkv", "layers.9.feed_forward.down", "head"):
        wide = plain.get_submodule(path).take()  # type: ignore[operator]
        narrow = kept.get_submodule(path).take()  # type: ignore[operator]
        torch.testing.assert_close(narrow.dequantize(), wide, rtol=0, atol=1e-6)


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
    with pytest.raises(InvalidConfig, match="int8, fp8 or int4"):
        EngineConfig(quantization="int3")  # type: ignore[arg-type]
