"""What a checkpoint's configuration is read as, and what is refused."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from engine.catalog import ModelFiles, resolve
from engine.config import ModelConfig, RopeConfig
from engine.errors import CheckpointError, UnsupportedModel
from engine.models.families import FAMILIES, load_config

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

Read = Callable[..., ModelConfig]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Read a ``config.json`` of Llama's with some keys changed (or, by ``...``, left out)."""

    def read(generation: object = None, **changes: object) -> ModelConfig:
        values = {key: value for key, value in (LLAMA | changes).items() if value is not ...}
        (tmp_path / "config.json").write_text(json.dumps(values))
        if generation is not None:
            (tmp_path / "generation_config.json").write_text(json.dumps(generation))
        return load_config(ModelFiles("tiny", tmp_path, None))

    return read


def test_a_llama(read: Read) -> None:
    assert read() == ModelConfig(
        family="llama",
        vocab_size=100,
        hidden_size=64,
        intermediate_size=128,
        num_layers=4,
        num_heads=8,
        num_kv_heads=2,
        head_dim=8,
        max_position=512,
        rms_norm_eps=1e-5,
        rope=RopeConfig(500_000.0),
        tie_embeddings=False,
        bos_token_id=1,
        eos_token_ids=(2,),
    )


def test_the_embedded_model_is_read_from_its_gguf_metadata() -> None:
    config = load_config(resolve("smollm2"))
    assert (config.family, config.num_layers, config.hidden_size) == ("llama", 30, 576)
    assert (config.num_heads, config.num_kv_heads, config.head_dim) == (9, 3, 64)
    assert (config.vocab_size, config.intermediate_size) == (49_152, 1536)
    assert (config.max_position, config.rope) == (8192, RopeConfig(100_000.0))
    assert config.tie_embeddings
    assert (config.bos_token_id, config.eos_token_ids) == (1, (2,))


def test_reading_a_configuration_needs_no_torch() -> None:
    code = (
        "import sys; from engine.catalog import resolve; "
        "from engine.models.families import load_config; load_config(resolve('smollm2')); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_absent_and_null_values_take_the_familys_defaults(read: Read) -> None:
    config = read(num_key_value_heads=..., rms_norm_eps=..., rope_theta=..., head_dim=None)
    assert (config.num_kv_heads, config.head_dim) == (8, 8)
    assert (config.rms_norm_eps, config.rope.theta) == (1e-6, 10_000.0)
    assert read(architectures=["Qwen3ForCausalLM"]).head_dim == 128


def test_stop_ids_are_gathered_from_both_files(read: Read) -> None:
    config = read(eos_token_id=[2, 5], generation={"eos_token_id": [5, 9]})
    assert config.eos_token_ids == (2, 5, 9)
    assert read(eos_token_id=None, generation={"eos_token_id": 7}).eos_token_ids == (7,)
    assert read(eos_token_id=..., generation={}).eos_token_ids == ()


@pytest.mark.parametrize(
    ("architecture", "qkv_bias", "output_bias", "qk_norm"),
    [
        ("LlamaForCausalLM", False, False, False),
        ("MistralForCausalLM", False, False, False),
        ("Qwen2ForCausalLM", True, False, False),
        ("Qwen3ForCausalLM", False, False, True),
    ],
)
def test_families_differ_in_biases_and_norms(
    read: Read, architecture: str, qkv_bias: bool, output_bias: bool, qk_norm: bool
) -> None:
    config = read(architectures=[architecture])
    assert (config.qkv_bias, config.output_bias, config.qk_norm) == (qkv_bias, output_bias, qk_norm)


def test_llamas_attention_bias_is_on_all_four_products(read: Read) -> None:
    config = read(attention_bias=True, mlp_bias=True)
    assert (config.qkv_bias, config.output_bias, config.mlp_bias) == (True, True, True)


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_rope_scaling_is_read_in_both_spellings(read: Read, key: str) -> None:
    llama3 = {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    assert read(**{key: llama3}).rope == RopeConfig(500_000.0, "llama3", 32.0, 1.0, 4.0, 8192)
    assert read(**{key: {"type": "linear", "factor": 2}}).rope == RopeConfig(
        500_000.0, "linear", 2.0
    )
    assert read(**{key: {"rope_type": "default", "rope_theta": 7.0}}).rope == RopeConfig(7.0)


def test_mistrals_window_is_everywhere_and_null_turns_it_off(read: Read) -> None:
    mistral = ["MistralForCausalLM"]
    windows = [read(architectures=mistral, sliding_window=100).window(i) for i in range(4)]
    assert windows == [100] * 4
    assert read(architectures=mistral, sliding_window=None).window(0) is None
    assert read(architectures=mistral).window(0) == 4096
    assert read(sliding_window=100).window(0) == 100


def test_qwens_window_is_off_unless_asked_for_and_follows_the_layers(read: Read) -> None:
    qwen = {"architectures": ["Qwen2ForCausalLM"], "sliding_window": 64}
    assert read(**qwen).window(3) is None
    config = read(**qwen, use_sliding_window=True, max_window_layers=3)
    assert [config.window(i) for i in range(4)] == [None, None, None, 64]
    kinds = ["sliding_attention", "full_attention"] * 2
    config = read(**qwen, use_sliding_window=True, layer_types=kinds)
    assert [config.window(i) for i in range(4)] == [64, None, 64, None]
    with pytest.raises(UnsupportedModel, match="chunked_attention"):
        read(**qwen, use_sliding_window=True, layer_types=["chunked_attention"] * 4)


def test_an_unknown_architecture_lists_the_known_ones(read: Read) -> None:
    with pytest.raises(UnsupportedModel) as raised:
        read(architectures=["GPT2LMHeadModel"])
    assert "GPT2LMHeadModel" in str(raised.value)
    for family in FAMILIES.values():
        assert family.architecture in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
            "'yarn' .* default, linear, llama3",
        ),
        ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, "dynamic"),
        ({"quantization_config": {"quant_method": "gptq"}}, "gptq .* GGUF"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"partial_rotary_factor": 0.5}, "part of each head"),
    ],
)
def test_unsupported_features_are_refused_by_name(
    read: Read, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(UnsupportedModel, match=said):
        read(**changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_size": ...}, "does not state hidden_size"),
        ({"num_hidden_layers": -1}, "num_hidden_layers is -1"),
        ({"num_attention_heads": "8"}, "num_attention_heads is '8'"),
        ({"num_key_value_heads": 3}, "8 query heads do not divide among 3"),
        ({"head_dim": 7}, "heads of 7 cannot be rotated"),
        ({"architectures": ...}, "architectures"),
        ({"tie_word_embeddings": "yes"}, "not true or false"),
        ({"eos_token_id": "</s>"}, "not token ids"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "does not state factor"),
    ],
)
def test_values_that_make_no_sense_are_named(
    read: Read, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(CheckpointError, match=said):
        read(**changes)


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_an_unreadable_config_is_a_checkpoint_error(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_config(ModelFiles("tiny", tmp_path, None))


def write_gguf(path: Path, architecture: str, *, more: Mapping[str, object] | None = None) -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(512)
    writer.add_embedding_length(64)
    writer.add_block_count(2)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_eos_token_id(2)
    writer.add_eot_token_id(7)
    for key, value in (more or {}).items():
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        else:
            writer.add_uint32(key, int(str(value)))
    writer.add_tensor("token_embd.weight", np.zeros((50, 64), np.float32))
    writer.add_tensor("output.weight", np.zeros((50, 64), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def read_gguf(path: Path) -> ModelConfig:
    return load_config(ModelFiles("tiny", path.parent, path))


def test_gguf_metadata(tmp_path: Path) -> None:
    more: dict[str, object] = {
        "qwen3.attention.key_length": 32,
        "qwen3.rope.freq_base": 1e6,
        "tokenizer.ggml.eom_token_id": 9,
        "tokenizer.ggml.bos_token_id": 50,  # outside the vocabulary
    }
    config = read_gguf(write_gguf(tmp_path / "tiny.gguf", "qwen3", more=more))
    assert (config.family, config.vocab_size, config.head_dim) == ("qwen3", 50, 32)
    assert (config.num_heads, config.num_kv_heads) == (4, 4)
    assert config.rope == RopeConfig(1e6)
    assert config.qk_norm
    assert not config.tie_embeddings
    assert (config.bos_token_id, config.eos_token_ids) == (None, (2, 7, 9))


def test_gguf_linear_scaling(tmp_path: Path) -> None:
    more = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    config = read_gguf(write_gguf(tmp_path / "tiny.gguf", "llama", more=more))
    assert config.rope == RopeConfig(10_000.0, "linear", 4.0)


@pytest.mark.parametrize(
    ("architecture", "more", "said"),
    [
        ("gemma2", {}, "'gemma2' is not known; known are llama, qwen2, qwen3"),
        ("llama", {"llama.expert_count": 8}, "mixture of experts"),
        ("llama", {"llama.rope.scaling.type": "yarn"}, "'yarn' is not known"),
        ("llama", {"llama.rope.dimension_count": 8}, "part of each head"),
    ],
)
def test_unsupported_gguf_files_are_refused(
    tmp_path: Path, architecture: str, more: dict[str, object], said: str
) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", architecture, more=more)
    with pytest.raises(UnsupportedModel, match=said):
        read_gguf(path)
