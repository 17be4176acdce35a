"""Checkpoints of every layout and format, and everything that can be wrong with one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from gguf.quants import dequantize, quantize
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.cache.kv_cache import KVCache
from engine.catalog import ModelFiles, resolve
from engine.errors import CheckpointError, OutOfCache
from engine.kernels.batch import AttentionBatch
from engine.models.checkpoint import INDEX_FILE, SINGLE_FILE
from engine.models.decoder import Decoder
from engine.models.families import load_config
from engine.models.loading import load_model

CPU = torch.device("cpu")
TINY: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
}
TOKENS = [3, 60, 11, 42, 7, 7, 0, 33, 19]

Model = transformers.PreTrainedModel


def make(config: transformers.PreTrainedConfig) -> Model:
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = 1 + 0.2 * noise if "norm" in name else 0.2 * noise
    return model.eval()


def cast_parameters(model: Model, dtype: torch.dtype) -> None:
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def load_folder(folder: Path, dtype: torch.dtype = torch.float32) -> Decoder:
    files = ModelFiles("tiny", folder, None)
    return load_model(files, load_config(files), device=CPU, dtype=dtype)


def load_gguf(path: Path) -> Decoder:
    files = ModelFiles("tiny", path.parent, path)
    return load_model(files, load_config(files), device=CPU, dtype=torch.float32)


def logits(decoder: Decoder) -> Tensor:
    """Of every position of `TOKENS`, in one step."""
    count = len(TOKENS)
    cache = KVCache.allocate(decoder.config, 1, 16, CPU, decoder.embedding.dtype)
    batch = AttentionBatch(
        query_start=torch.tensor([0, count], dtype=torch.int32),
        context_lens=torch.tensor([count], dtype=torch.int32),
        block_tables=torch.zeros(1, 1, dtype=torch.int32),
        slot_mapping=torch.arange(count),
        num_decodes=0,
        max_query=count,
        max_context=count,
        block_size=16,
    )
    hidden = decoder(torch.tensor(TOKENS), torch.arange(count), batch, cache)
    return decoder.logits(hidden)


@torch.no_grad()
def assert_equals_oracle(decoder: Decoder, oracle: Model) -> None:
    expected = oracle(torch.tensor([TOKENS])).logits[0]
    torch.testing.assert_close(logits(decoder), expected, atol=1e-4, rtol=1e-4)


def save_sharded(model: Model, folder: Path) -> None:
    model.save_pretrained(folder, max_shard_size="60KB")
    assert (folder / INDEX_FILE).is_file()
    assert len(list(folder.glob("*.safetensors"))) > 2


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("save", [Model.save_pretrained, save_sharded])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
def test_one_file_or_several_of_any_plain_dtype(
    tmp_path: Path, stored: torch.dtype, save: Callable[[Model, Path], None], tied: bool
) -> None:
    oracle = make(transformers.LlamaConfig(**TINY, tie_word_embeddings=tied))
    # Not the whole module: its rotary buffer would lose digits that no checkpoint holds.
    cast_parameters(oracle, stored)
    save(oracle, tmp_path)
    cast_parameters(oracle, torch.float32)
    assert_equals_oracle(load_folder(tmp_path), oracle)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_are_cast_to_the_dtype_asked_for(tmp_path: Path, dtype: torch.dtype) -> None:
    make(transformers.LlamaConfig(**TINY)).save_pretrained(tmp_path)
    decoder = load_folder(tmp_path, dtype)
    # The head of a CPU is float32, so that its scores are.
    kinds = {name: parameter.dtype for name, parameter in decoder.named_parameters()}
    assert kinds.pop("head.weight") == torch.float32
    assert set(kinds.values()) == {dtype}
    near = torch.nn.functional.cosine_similarity(
        logits(decoder), logits(load_folder(tmp_path)), dim=-1
    )
    assert near.min() > 0.995


@pytest.fixture
def tied_folder(tmp_path: Path) -> Path:
    make(transformers.LlamaConfig(**TINY, tie_word_embeddings=True)).save_pretrained(tmp_path)
    return tmp_path


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Change the tensors of a checkpoint in a single file."""
    tensors = load_file(folder / SINGLE_FILE)
    change(tensors)
    save_file(tensors, folder / SINGLE_FILE)


def test_leftovers_that_say_nothing_new_are_no_error(tied_folder: Path) -> None:
    before = logits(load_folder(tied_folder))

    def add(tensors: dict[str, Tensor]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)

    rewrite(tied_folder, add)
    assert torch.equal(logits(load_folder(tied_folder)), before)


def test_every_tensor_that_does_not_fit_is_named_at_once(tied_folder: Path) -> None:
    def spoil(tensors: dict[str, Tensor]) -> None:
        del tensors["model.norm.weight"]
        del tensors["model.layers.1.mlp.up_proj.weight"]
        tensors["model.layers.2.input_layernorm.weight"] = torch.ones(64)
        tensors["model.layers.0.self_attn.q_proj.bias"] = torch.ones(64)
        tensors["model.layers.0.self_attn.k_proj.weight"] = torch.ones(64, 64)

    rewrite(tied_folder, spoil)
    with pytest.raises(CheckpointError) as raised:
        load_folder(tied_folder)
    said = str(raised.value)
    assert "missing: model.layers.1.mlp.up_proj.weight, model.norm.weight;" in said
    assert (
        "unexpected: model.layers.0.self_attn.q_proj.bias, model.layers.2.input_layernorm.weight;"
        in said
    )
    assert "model.layers.0.self_attn.k_proj.weight is (64, 64), not (32, 64)" in said


def test_an_untied_head_must_be_there(tied_folder: Path) -> None:
    config = json.loads((tied_folder / "config.json").read_text())
    (tied_folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    with pytest.raises(CheckpointError, match=r"missing: lm_head\.weight"):
        load_folder(tied_folder)


def test_weights_in_integers_are_refused(tied_folder: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    rewrite(tied_folder, lambda tensors: tensors.update({name: tensors[name].to(torch.int8)}))
    with pytest.raises(CheckpointError, match=f"{name} is stored as I8"):
        load_folder(tied_folder)


def test_a_folder_without_safetensors_says_so(tied_folder: Path) -> None:
    (tied_folder / SINGLE_FILE).unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        load_folder(tied_folder)


def test_a_truncated_file_is_named(tied_folder: Path) -> None:
    path = tied_folder / SINGLE_FILE
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        load_folder(tied_folder)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    save_sharded(make(transformers.LlamaConfig(**TINY)), tmp_path)
    shard = sorted(tmp_path.glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(CheckpointError, match=f"{shard.name} is missing"):
        load_folder(tmp_path)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ({}, "has no weight_map"),
        ({"weight_map": {"a": "../elsewhere.safetensors"}}, "outside its folder"),
        ({"weight_map": {"a": "part.safetensors", "b": "part.safetensors"}}, "absent tensors: b"),
    ],
)
def test_a_broken_index_is_refused(tied_folder: Path, index: dict[str, object], said: str) -> None:
    (tied_folder / SINGLE_FILE).unlink()
    save_file({"a": torch.ones(2)}, tied_folder / "part.safetensors")
    (tied_folder / INDEX_FILE).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=said):
        load_folder(tied_folder)


def permute(weights: np.ndarray, heads: int) -> np.ndarray:
    """As llama.cpp's converter does (``convert_hf_to_gguf.py``, ``LlamaModel.permute``)."""
    split = weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
    return split.swapaxes(1, 2).reshape(weights.shape)


def write_gguf(
    path: Path,
    oracle: Model,
    architecture: gguf.MODEL_ARCH,
    type: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    frequency_factors: np.ndarray | None = None,
) -> Path:
    """Write the oracle's weights; matrices in ``type``, which the oracle then takes over itself."""
    config = oracle.config
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture])
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(oracle.model.layers[0].self_attn.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, parameter in oracle.named_parameters():
        weights = parameter.detach().numpy()
        own_type = type if weights.ndim == 2 else gguf.GGMLQuantizationType.F32
        parameter.data = torch.from_numpy(dequantize(quantize(weights, own_type), own_type).copy())
        module = name.split(".")[-2]
        if architecture == gguf.MODEL_ARCH.LLAMA and module in heads:
            weights = permute(weights, heads[module])
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        writer.add_tensor(target, quantize(weights, own_type), raw_dtype=own_type)
    if frequency_factors is not None:
        writer.add_tensor("rope_freqs.weight", frequency_factors)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("type", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_gguf_of_every_type(tmp_path: Path, type: str, tied: bool) -> None:
    oracle = make(transformers.LlamaConfig(**TINY, tie_word_embeddings=tied))
    kind = gguf.GGMLQuantizationType[type]
    path = write_gguf(tmp_path / "tiny.gguf", oracle, gguf.MODEL_ARCH.LLAMA, kind)
    assert_equals_oracle(load_gguf(path), oracle)


@pytest.mark.parametrize(
    ("config", "architecture"),
    [
        (transformers.Qwen2Config(**TINY), gguf.MODEL_ARCH.QWEN2),
        (transformers.Qwen3Config(**TINY, head_dim=32), gguf.MODEL_ARCH.QWEN3),
        (transformers.MistralConfig(**TINY, sliding_window=None), gguf.MODEL_ARCH.LLAMA),
        (transformers.LlamaConfig(**TINY, attention_bias=True), gguf.MODEL_ARCH.LLAMA),
    ],
)
def test_gguf_of_every_family(
    tmp_path: Path, config: transformers.PreTrainedConfig, architecture: gguf.MODEL_ARCH
) -> None:
    oracle = make(config)
    assert_equals_oracle(load_gguf(write_gguf(tmp_path / "t.gguf", oracle, architecture)), oracle)


def test_gguf_frequency_factors_are_llama3s_scaling(tmp_path: Path) -> None:
    rope = {
        "rope_type": "llama3",
        "rope_theta": 10_000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }
    oracle = make(transformers.LlamaConfig(**TINY, rope_parameters=rope))
    plain = 10_000.0 ** (-np.arange(0, 16, 2) / 16)
    factors = (plain / oracle.model.rotary_emb.inv_freq.numpy()).astype(np.float32)
    assert factors.max() > 7
    path = write_gguf(tmp_path / "t.gguf", oracle, gguf.MODEL_ARCH.LLAMA, frequency_factors=factors)
    assert_equals_oracle(load_gguf(path), oracle)


def test_a_gguf_tensor_that_does_not_fit_is_named(tmp_path: Path) -> None:
    oracle = make(transformers.LlamaConfig(**TINY))
    path = write_gguf(
        tmp_path / "t.gguf",
        oracle,
        gguf.MODEL_ARCH.LLAMA,
        frequency_factors=np.ones(5, np.float32),
    )
    with pytest.raises(CheckpointError, match=r"rope_freqs\.weight is \(5,\), not \(8,\)"):
        load_gguf(path)


def test_packing_keeps_no_second_copy_of_the_weights() -> None:
    files = resolve("smollm2")
    decoder = load_model(files, load_config(files), device=CPU, dtype=torch.bfloat16)
    decoder.pack()
    held = sum(parameter.numel() for parameter in decoder.parameters())
    # Packed or not, nothing but the embedding, norms, and what could not be packed stays.
    assert held in (49_152 * 576 + 61 * 576, 134_515_008)


def test_a_cache_that_does_not_fit_is_a_typed_error(tied_folder: Path) -> None:
    config = load_config(ModelFiles("tiny", tied_folder, None))
    with pytest.raises(OutOfCache):
        KVCache.allocate(config, 0, 16, CPU, torch.float32)
    with pytest.raises(OutOfCache, match="bytes"):
        KVCache.allocate(config, 2**42, 16, CPU, torch.float32)
