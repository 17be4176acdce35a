"""Texts that tokenizers find hard, a small tokenizer that was trained on them, and a tiny model."""

import json
import random
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from safetensors.numpy import save_file
from tokenizers import decoders, pre_tokenizers, trainers

from engine import LLM

TEXTS = [
    "Hello, world!",
    "",
    " ",
    "   ",
    "\n\n\n",
    "  two  spaces   between\twords\t\t\n  and lines\r\n\r\n",
    "don't I'LL we've they'd 'tis",
    "naïve café, “quotes”, Straße, Ελληνικά, русский, עברית, العربية, हिन्दी",
    "日本語のテキスト、한국어 텍스트, 中文文本。",
    "👩‍👩‍👧‍👦 🏳️‍🌈 😀 e\u0301 \u00a0 \u2003 \u200b \ufeff",
    "12345 3.14159 1,000,000 2024-02-30 0x1F ١٢٣ ⅷ ²",
    "def f(x: int) -> int:\n\treturn x**2  # squared\n\n\nclass A:\n    pass\n",
    "<|im_start|>user\nhi<|im_end|> <|endoftext|><|im_start|>",
    "HTTPServer_v2.internalName == 'camelCase'; // comment /* x */",
    "\x00\x01\x7f\x80 control",
    "a" * 500,
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
]
CORPUS = [text for text in TEXTS if not text.startswith("<|")] + [
    " ".join(dir(module)) + (module.__doc__ or "") for module in (json, random, subprocess, str)
]


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return TEXTS


@pytest.fixture(scope="session")
def corpus() -> list[str]:
    """The texts, and more words to train on."""
    return CORPUS


@pytest.fixture(scope="module")
def trained(corpus: list[str]) -> tokenizers.Tokenizer:
    """A small byte-level BPE with a few special tokens."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<|endoftext|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


class Chain:
    """A Markov chain as a Llama: one-hot embeddings, layers of zeros, and a head that counts on.

    After the token t comes t + 1, whatever was before.
    """

    width = 64  # most tokens that there can be

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(
        self, tokenizer: tokenizers.Tokenizer, files: Mapping[str, Mapping[str, Any]]
    ) -> Path:
        """The folder, with ``files`` (name → object) beside the model's; ``config`` is added to."""
        width = self.width
        config = {
            "architectures": ["LlamaForCausalLM"],
            "hidden_size": width,
            "intermediate_size": width,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "max_position_embeddings": 128,
            "vocab_size": width,
        }
        one, zero = np.eye(width, dtype=np.float32), np.zeros((width, width), np.float32)
        layer = "model.layers.0"
        projections = [f"self_attn.{name}_proj" for name in "qkvo"]
        projections += [f"mlp.{name}_proj" for name in ("gate", "up", "down")]
        norms = [f"{layer}.input_layernorm", f"{layer}.post_attention_layernorm", "model.norm"]
        weights: dict[str, Any] = {f"{layer}.{name}.weight": zero for name in projections}
        weights |= {f"{name}.weight": np.ones(width, np.float32) for name in norms}
        weights |= {"model.embed_tokens.weight": one, "lm_head.weight": np.roll(one, 1, axis=0)}
        save_file(weights, self.folder / "model.safetensors")
        tokenizer.save(str(self.folder / "tokenizer.json"))
        for name, values in {"config.json": {}, **files}.items():
            whole = config | dict(values) if name == "config.json" else values
            (self.folder / name).write_text(json.dumps(whole))
        return self.folder

    def load(self, **settings: Any) -> LLM:
        return LLM(str(self.folder), device="cpu", dtype="float32", threads=1, **settings)


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    """Makes a folder of a model that writes a fixed word after each word."""
    return Chain(tmp_path)
