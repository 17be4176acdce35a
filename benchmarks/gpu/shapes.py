"""The shapes of the models that are measured with random weights, each as its ``config.json``."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.catalog import ModelFiles
from engine.config import ModelConfig
from engine.models.families import load_config

QWEN3_06B, LLAMA3_8B = "qwen3-0.6b", "llama-3.1-8b"

SHAPES: Mapping[str, Mapping[str, Any]] = {
    QWEN3_06B: {
        "architectures": ["Qwen3ForCausalLM"],
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151_936,
        "max_position_embeddings": 40_960,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "tie_word_embeddings": True,
    },
    LLAMA3_8B: {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 128_256,
        "max_position_embeddings": 131_072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500_000.0,
        "rope_scaling": {
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
        "tie_word_embeddings": False,
    },
}
# What makes a toy of any of them, of the same kind.
TOY = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 512,
    "max_position_embeddings": 2048,
}


def model_config(name: str, *, toy: bool = False) -> ModelConfig:
    """The shape of a model, or of a toy of its kind."""
    with tempfile.TemporaryDirectory() as folder:
        values = {**SHAPES[name], **(TOY if toy else {})}
        (Path(folder) / "config.json").write_text(json.dumps(values))
        return load_config(ModelFiles(name, Path(folder), None))
