"""A real checkpoint that takes no time to run, and whose every answer can be foretold.

Its vocabulary is a ring of invented words. The weights make the word after the last one the next
token, by a margin that no rounding reaches: whoever knows a prompt knows its answer, and an answer
that went to the wrong line shows. Attention and feed-forward are random, small and computed in
full.

One word ends the engine that runs it. Its answer is ``~``, which the ``tokenizers`` library cannot
decode with this checkpoint's decoder: `Strip` cuts one sign from either end, and of the two cuts
of a single sign the second lies before the first, which is a panic of the library. Real poison:
nobody kills anything, and it does the same every time.
"""

import itertools
import json
import string
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel

NAME = "tiny"
WORDS = tuple(
    "".join(letters) for letters in itertools.product("bdfklmnprst", "aeiou", "bdfgklmnprst", "ao")
)
POISON = "poison"
CONTEXT = 1024
HIDDEN, INNER, HEADS, KV_HEADS, LAYERS = 64, 128, 4, 2, 2
NOISE = 0.03

_PLACE = {word: place for place, word in enumerate(WORDS)}
_FATAL = "~"
_OTHERS = ("<unk>", POISON, _FATAL, *string.digits)


def make_checkpoint(folder: Path) -> Path:
    """Write the checkpoint, a Hugging Face folder of about 1 MB; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = (*WORDS, *_OTHERS)
    _tokenizer(vocabulary).save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps(_config(len(vocabulary))))
    (folder / "chat_template.jinja").write_text(
        "{% for message in messages %}{{ message.content }} {% endfor %}"
    )
    save_file(_weights(vocabulary), folder / "model.safetensors")
    return folder


def answer(body: dict[str, Any]) -> str | None:
    """What the model must say to a request's body; ``None`` where it cannot say anything."""
    text: str = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
    place = _PLACE.get(text.split()[-1])
    if place is None:
        return None
    count = body["max_tokens"]
    words = " ".join(WORDS[(place + step) % len(WORDS)] for step in range(1, count + 1))
    # A completion goes on from its prompt.
    return f" {words}" if "prompt" in body else words


def _tokenizer(vocabulary: tuple[str, ...]) -> Tokenizer:
    ids = {word: place for place, word in enumerate(vocabulary)}
    tokenizer = Tokenizer(WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.Sequence(
        [decoders.WordPiece(prefix="##", cleanup=False), decoders.Strip(_FATAL, 1, 1)]
    )
    return tokenizer


def _config(vocabulary: int) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": vocabulary,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
    }


def _weights(vocabulary: tuple[str, ...]) -> dict[str, np.ndarray]:
    source = np.random.default_rng(0)

    def noise(*shape: int) -> np.ndarray:
        return (NOISE * source.standard_normal(shape)).astype(np.float32)

    embedding = source.choice([-1.0, 1.0], (len(vocabulary), HIDDEN)).astype(np.float32)
    weights = {
        "model.embed_tokens.weight": embedding,
        "model.norm.weight": np.ones(HIDDEN, np.float32),
        "lm_head.weight": embedding[_before(vocabulary)],
    }
    width, kv_width = HIDDEN, HIDDEN // HEADS * KV_HEADS
    for layer in range(LAYERS):
        for name, shape in (
            ("self_attn.q_proj", (width, HIDDEN)),
            ("self_attn.k_proj", (kv_width, HIDDEN)),
            ("self_attn.v_proj", (kv_width, HIDDEN)),
            ("self_attn.o_proj", (HIDDEN, width)),
            ("mlp.gate_proj", (INNER, HIDDEN)),
            ("mlp.up_proj", (INNER, HIDDEN)),
            ("mlp.down_proj", (HIDDEN, INNER)),
        ):
            weights[f"model.layers.{layer}.{name}.weight"] = noise(*shape)
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"model.layers.{layer}.{name}.weight"] = np.ones(HIDDEN, np.float32)
    return weights


def _before(vocabulary: tuple[str, ...]) -> list[int]:
    """Token → the token that it follows: the output row of a token is that one's embedding."""
    ring = len(WORDS)
    before = [(place - 1) % ring for place in range(ring)]
    before += list(range(ring, len(vocabulary)))
    before[vocabulary.index(_FATAL)] = vocabulary.index(POISON)
    before[vocabulary.index(POISON)] = vocabulary.index(_FATAL)
    return before
