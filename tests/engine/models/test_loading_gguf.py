"""GGUF files of every type and family, loaded, against the weights that were written to them."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import transformers

from engine.catalog import ModelFiles
from engine.errors import CheckpointError
from engine.kernels.reference.backend import ReferenceBackend
from engine.models.decoder import Decoder
from engine.models.families import load_config
from engine.models.loading import load_model
from oracle import CPU, TINY, assert_equals_oracle, make
from oracle.ggufs import write_gguf


def load_gguf(path: Path) -> Decoder:
    files = ModelFiles("tiny", path.parent, path)
    return load_model(
        files, load_config(files), backend=ReferenceBackend(), device=CPU, dtype=torch.float32
    )


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
