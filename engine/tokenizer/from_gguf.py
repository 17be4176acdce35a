"""A tokenizer rebuilt from the metadata of a GGUF file.

GGUF stores the vocabulary, the merges or scores, and names for the rest (llama.cpp's
``llama-vocab.cpp`` is the reference for what the names mean): ``tokenizer.ggml.model`` is
``gpt2`` for byte-level BPE and ``llama`` for SentencePiece's BPE, ``tokenizer.ggml.pre`` says how a
byte-level tokenizer splits text before merging.
"""

from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, processors
from tokenizers.models import BPE

from engine.errors import TokenizerError
from engine.tokenizer.chat import DEFAULT
from engine.tokenizer.splits import SPLITS, Splits

Metadata = Mapping[str, Any]

_SPECIAL_IDS: Mapping[str, str] = MappingProxyType(
    {
        "bos_token": "tokenizer.ggml.bos_token_id",
        "eos_token": "tokenizer.ggml.eos_token_id",
        "unk_token": "tokenizer.ggml.unknown_token_id",
        "pad_token": "tokenizer.ggml.padding_token_id",
        "prefix_token": "tokenizer.ggml.prefix_token_id",
        "suffix_token": "tokenizer.ggml.suffix_token_id",
        "middle_token": "tokenizer.ggml.middle_token_id",
        "fim_prefix_token": "tokenizer.ggml.fim_pre_token_id",
        "fim_suffix_token": "tokenizer.ggml.fim_suf_token_id",
        "fim_middle_token": "tokenizer.ggml.fim_mid_token_id",
    }
)

# How tokens that end a turn are spelled, whatever keys a file has: llama.cpp's list of tokens that
# end generation (`llama-vocab.cpp`), and those of families that it reads from keys.
_ENDS = frozenset(
    {
        "</s>",
        "<EOT>",
        "<end_of_turn>",
        "<end_of_utterance>",
        "<turn|>",
        "<|END_OF_TURN_TOKEN|>",
        "<|call|>",
        "<|calls|>",
        "<|end_of_text|>",
        "<|end_of_turn|>",
        "<|endoftext|>",
        "<|end|>",
        "<|eom_id|>",
        "<|eom|>",
        "<|eot_id|>",
        "<|eot|>",
        "<|flush|>",
        "<|im_end|>",
        "<|return|>",
        "<｜end▁of▁sentence｜>",
        "[EOS]",
        "[EOT]",
        "_<EOT>",
    }
)
# Where a vocabulary has both of a pair, "<|end|>" ends a message and not a turn.
_MESSAGE_END, _ENDS_BESIDE_IT = "<|end|>", (("<|return|>", "<|call|>"), ("<|calls|>", "<|flush|>"))


class TokenType(IntEnum):
    """What a token of the vocabulary is (``llama_token_type``)."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


def rebuild(metadata: Metadata) -> Tokenizer:
    """The tokenizer that the metadata describes.

    Raises:
        TokenizerError: there is none, its kind is not known, or its parts do not fit together.
    """
    model = metadata.get("tokenizer.ggml.model")
    build = _BUILDERS.get(model or "")
    if build is None:
        raise TokenizerError(
            f"The GGUF file's tokenizer is of model {model!r}; known are: "
            f"{', '.join(sorted(_BUILDERS))}."
        )
    try:
        tokenizer = build(metadata)
        _add_tokens(tokenizer, metadata)
        _add_ends(tokenizer, metadata, bos_by_default=model == "llama" or _splits(metadata).bos)
    except TokenizerError:
        raise
    except Exception as problem:  # the library raises nothing more precise
        raise TokenizerError(
            f"The GGUF file's tokenizer is incomplete or contradicts itself: {problem!r}"
        ) from problem
    return tokenizer


def special_tokens(metadata: Metadata) -> dict[str, str]:
    """Role → token, such as ``{"eos_token": "<|im_end|>"}``, for the roles the file names."""
    tokens = metadata.get("tokenizer.ggml.tokens", ())
    named = {role: metadata.get(key) for role, key in _SPECIAL_IDS.items()}
    return {
        role: tokens[token_id]
        for role, token_id in named.items()
        if token_id is not None and token_id < len(tokens)
    }


def end_tokens(metadata: Metadata) -> list[str]:
    """Control tokens that end a turn by their spelling alone, in a file that has a chat template.

    A base model's file has none, and ends where its keys say.
    """
    if not chat_templates(metadata):
        return []
    tokens: list[str] = metadata.get("tokenizer.ggml.tokens", [])
    control = set(_of_types(metadata, TokenType.CONTROL, TokenType.USER_DEFINED))
    ends = [token for token in tokens if token in _ENDS and token in control]
    if any(first in ends and second in ends for first, second in _ENDS_BESIDE_IT):
        ends = [token for token in ends if token != _MESSAGE_END]
    return ends


def chat_templates(metadata: Metadata) -> dict[str, str]:
    """Name → Jinja source of the file's chat templates."""
    stem = "tokenizer.chat_template"
    named = {
        key.removeprefix(stem + "."): source
        for key, source in metadata.items()
        if key.startswith(stem + ".")
    }
    return named | ({DEFAULT: metadata[stem]} if stem in metadata else {})


def _byte_level(metadata: Metadata) -> Tokenizer:
    splits = _splits(metadata)
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(
        BPE(vocab=_vocabulary(metadata), merges=merges, ignore_merges=splits.ignore_merges)
    )
    if splits.nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = splits.pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece(metadata: Metadata) -> Tokenizer:
    vocabulary = _vocabulary(metadata)
    unknown = special_tokens(metadata).get("unk_token")
    # Text that happens to be spelled like one of these stays text.
    unmergeable = set(_of_types(metadata, TokenType.CONTROL, TokenType.UNKNOWN, TokenType.BYTE))
    tokenizer = Tokenizer(
        BPE(
            vocab=vocabulary,
            merges=_merges_by_score(
                [token for token in vocabulary if token not in unmergeable],
                metadata["tokenizer.ggml.scores"],
                vocabulary,
            ),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    # A space is put before every stretch of text, so that a word is the same token everywhere.
    prefix = bool(metadata.get("tokenizer.ggml.add_space_prefix", True))
    spaces = [normalizers.Replace(" ", "\u2581")]
    if prefix:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), *spaces])
    else:
        tokenizer.normalizer = spaces[0]
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    return tokenizer


def _merges_by_score(
    tokens: Iterable[str], scores: Any, vocabulary: Mapping[str, int]
) -> list[tuple[str, str]]:
    """Every way to join two tokens of the vocabulary into one of ``tokens``, best score first.

    SentencePiece keeps no list of merges: at any time it joins the pair of neighbours whose
    joined token scores highest, the leftmost among equals.
    """
    ranked: list[tuple[float, int, str, str]] = []
    for token in tokens:
        token_id = vocabulary[token]
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in vocabulary and right in vocabulary:
                ranked.append((-float(scores[token_id]), token_id, left, right))
    ranked.sort()
    return [(left, right) for _, _, left, right in ranked]


_BUILDERS: Mapping[str, Callable[[Metadata], Tokenizer]] = MappingProxyType(
    {"gpt2": _byte_level, "llama": _sentencepiece}
)


def _splits(metadata: Metadata) -> Splits:
    name = metadata.get("tokenizer.ggml.pre", "default")
    if name not in SPLITS:
        raise TokenizerError(
            f"The GGUF file's pre-tokenizer {name!r} is not known; known are: "
            f"{', '.join(sorted(SPLITS))}."
        )
    return SPLITS[name]


def _vocabulary(metadata: Metadata) -> dict[str, int]:
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    return {token: token_id for token_id, token in enumerate(tokens)}


def _add_tokens(tokenizer: Tokenizer, metadata: Metadata) -> None:
    """Mark the tokens that are matched whole in the text, before it is split."""
    special = _of_types(metadata, TokenType.CONTROL, TokenType.UNKNOWN)
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in special]
    )
    tokenizer.add_tokens(
        [
            AddedToken(token, special=False, normalized=False)
            for token in _of_types(metadata, TokenType.USER_DEFINED)
        ]
    )


def _of_types(metadata: Metadata, *types: TokenType) -> list[str]:
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    of_each = np.asarray(metadata.get("tokenizer.ggml.token_type", ()))[: len(tokens)]
    return [tokens[index] for index in np.flatnonzero(np.isin(of_each, types))]


def _add_ends(tokenizer: Tokenizer, metadata: Metadata, bos_by_default: bool) -> None:
    """Make the tokenizer put the first and last token where the file asks for them."""
    named = special_tokens(metadata)
    first = metadata.get("tokenizer.ggml.add_bos_token", bos_by_default) and named.get("bos_token")
    last = metadata.get("tokenizer.ggml.add_eos_token", False) and named.get("eos_token")
    ends = [token for token in (first, last) if token]
    if ends:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[token for token in (first, "$A", last) if token],
            special_tokens=[(token, tokenizer.token_to_id(token)) for token in ends],
        )
