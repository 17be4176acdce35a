"""Texts that tokenizers find hard, and a small tokenizer that was trained on them."""

import json
import random
import subprocess

import pytest
import tokenizers
from tokenizers import decoders, pre_tokenizers, trainers

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
