"""Filling in the middle: which tokens mark it, and the prompt made of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

from engine.tokenizer import Tokenizer
from engine.tokenizer.from_gguf import rebuild, special_tokens

FAMILIES = [
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    ("\u2581<PRE>", "\u2581<SUF>", "\u2581<MID>"),
    ("<PRE>", "<SUF>", "<MID>"),
    ("<\uff5cfim\u2581begin\uff5c>", "<\uff5cfim\u2581hole\uff5c>", "<\uff5cfim\u2581end\uff5c>"),
    ("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),
]


def byte_level(added: Sequence[str], *, bos: bool = False, **roles: str) -> Tokenizer:
    """A tokenizer whose words are bytes, with these tokens added behind ``<s>``."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(
        models.BPE(vocab={token: i for i, token in enumerate(alphabet)}, merges=[])
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<s>", *added])
    if bos:
        backend.post_processor = processors.TemplateProcessing(
            single=["<s>", "$A"], special_tokens=[("<s>", 256)]
        )
    return Tokenizer(backend, special_tokens={"bos_token": "<s>", **roles}, chat_templates={})


def filled(tokenizer: Tokenizer, before: str, after: str) -> list[int]:
    tokens = tokenizer.fill_tokens
    assert tokens is not None
    ids = tokenizer.encode_batch([before, tokens.mark + after], add_special_tokens=False)
    return tokens.arrange(*ids)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bos", [False, True])
def test_every_known_spelling(family: tuple[str, str, str], bos: bool) -> None:
    tokenizer = byte_level(["<other>", *family, "<|endoftext|>"], bos=bos)
    found = filled(tokenizer, "a", " b")
    start = [256] if bos else []
    assert found == [
        *start,
        258,
        *tokenizer.encode("a", add_special_tokens=False),
        259,
        *tokenizer.encode(" b", add_special_tokens=False),
        260,
    ]
    assert tokenizer.fill_tokens is not None
    assert tokenizer.fill_tokens.ends == (261,)


@pytest.mark.parametrize(
    "roles",
    [
        {"prefix_token": "<x>", "suffix_token": "<y>", "middle_token": "<z>"},
        {"fim_prefix_token": "<x>", "fim_suffix_token": "<y>", "fim_middle_token": "<z>"},
    ],
)
def test_what_a_checkpoint_names_comes_before_spellings(roles: dict[str, Any]) -> None:
    tokenizer = byte_level(["<x>", "<y>", "<z>", *FAMILIES[0]], **roles)
    assert filled(tokenizer, "", "") == [257, 258, 259]


@pytest.mark.parametrize("added", [[], ["<fim_prefix>", "<fim_suffix>"], ["<PRE>", "<fim_suffix>"]])
def test_a_model_without_all_three_has_none(added: list[str]) -> None:
    assert byte_level(added).fill_tokens is None


def test_a_prompt_that_begins_as_the_tokenizer_begins_one_keeps_that_in_front() -> None:
    tokenizer = byte_level(FAMILIES[1], bos=True)
    tokens = tokenizer.fill_tokens
    assert tokens is not None
    assert tokens.arrange([256, 5], [6]) == [256, 257, 5, 258, 6, 259]


@pytest.mark.parametrize("keys", ["prefix suffix middle", "fim_pre fim_suf fim_mid"])
def test_a_gguf_file_names_them_by_keys(keys: str) -> None:
    letters = ["\u2581", "a", "b", "\u2581a", "\u2581b"]
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    tokens = ["<unk>", "<s>", "</s>", *byte_tokens, *letters, "<x>", "<y>", "<z>"]
    named = {
        f"tokenizer.ggml.{key}_token_id": tokens.index(token)
        for key, token in zip(keys.split(), ("<x>", "<y>", "<z>"), strict=True)
    }
    metadata: Mapping[str, Any] = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * len(letters) + [3] * 3,
        "tokenizer.ggml.scores": [0.0] * len(tokens),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        **named,
    }
    tokenizer = Tokenizer(
        rebuild(metadata), special_tokens=special_tokens(metadata), chat_templates={}
    )
    x, y, z = (tokens.index(token) for token in ("<x>", "<y>", "<z>"))
    # The prefix is a text as any other; ahead of the suffix no space is put.
    a = [tokens.index("\u2581a")]
    assert filled(tokenizer, "a", "b") == [1, x, *a, y, tokens.index("b"), z]
    assert filled(tokenizer, "a", " b") == [1, x, *a, y, tokens.index("\u2581b"), z]
