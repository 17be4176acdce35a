"""The decoder against transformers: the same weights must give the same logits."""

import random
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from engine.cache.kv_cache import KVCache
from engine.catalog import ModelFiles, resolve
from engine.kernels.batch import AttentionBatch
from engine.kernels.reference.backend import ReferenceBackend
from engine.models.decoder import Decoder
from engine.models.families import load_config
from engine.models.loading import load_model

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:transformers"),
]

CPU = torch.device("cpu")
TINY: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR = {"rope_type": "linear", "rope_theta": 5000.0, "factor": 4.0}

FAMILIES: dict[str, transformers.PreTrainedConfig] = {
    "llama-gqa": transformers.LlamaConfig(**TINY),
    "llama-mha": transformers.LlamaConfig(**TINY | {"num_key_value_heads": 6}),
    "llama-mqa": transformers.LlamaConfig(**TINY | {"num_key_value_heads": 1}),
    "llama-tied": transformers.LlamaConfig(**TINY, tie_word_embeddings=True),
    "llama-head-dim": transformers.LlamaConfig(**TINY, head_dim=12),
    "llama-biases": transformers.LlamaConfig(**TINY, attention_bias=True, mlp_bias=True),
    "llama3-rope": transformers.LlamaConfig(**TINY, rope_parameters=LLAMA3),
    "linear-rope": transformers.LlamaConfig(**TINY, rope_parameters=LINEAR),
    # SmolLM2's proportions: 9 heads in groups of 3, tied.
    "smollm": transformers.LlamaConfig(
        **TINY | {"hidden_size": 36, "num_attention_heads": 9, "num_key_value_heads": 3},
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
    ),
    "mistral": transformers.MistralConfig(**TINY, sliding_window=None),
    "mistral-window": transformers.MistralConfig(**TINY, sliding_window=7),
    "qwen2": transformers.Qwen2Config(**TINY),
    "qwen2-window": transformers.Qwen2Config(
        **TINY, use_sliding_window=True, sliding_window=5, max_window_layers=1
    ),
    "qwen3": transformers.Qwen3Config(**TINY, head_dim=16, tie_word_embeddings=True),
    "qwen3-window": transformers.Qwen3Config(
        **TINY,
        head_dim=8,
        use_sliding_window=True,
        sliding_window=9,
        layer_types=["sliding_attention", "full_attention"],
    ),
}


class PagedDecoder:
    """Drives a decoder as the runner does, with sequences scattered over shuffled blocks."""

    def __init__(self, decoder: Decoder, dtype: torch.dtype = torch.float32) -> None:
        self.decoder = decoder
        self.block_size = 4
        self.cache = KVCache.allocate(decoder.config, 160, self.block_size, CPU, dtype)
        # What a cache holds where nothing was written must not matter.
        self.cache.keys.fill_(50.0)
        self.cache.values.fill_(-50.0)
        self.free = list(range(160))
        random.Random(7).shuffle(self.free)
        self.blocks: dict[str, list[int]] = {}
        self.lengths: dict[str, int] = {}

    def step(self, work: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
        """Run the next tokens of some sequences: logits [tokens, vocab] of each."""
        names = sorted(work, key=lambda name: len(work[name]) > 1)
        slots: list[int] = []
        positions: list[int] = []
        contexts: list[int] = []
        for name in names:
            start = self.lengths.setdefault(name, 0)
            blocks = self.blocks.setdefault(name, [])
            self.lengths[name] = end = start + len(work[name])
            while len(blocks) * self.block_size < end:
                blocks.append(self.free.pop())
            places = range(start, end)
            positions += places
            size = self.block_size
            slots += [blocks[place // size] * size + place % size for place in places]
            contexts.append(end)
        counts = [len(work[name]) for name in names]
        widest = max(len(self.blocks[name]) for name in names)
        tables = [self.blocks[n] + [0] * (widest - len(self.blocks[n])) for n in names]
        decodes = counts.count(1)
        batch = AttentionBatch(
            query_start=torch.tensor([0, *counts], dtype=torch.int32).cumsum(0, dtype=torch.int32),
            context_lens=torch.tensor(contexts, dtype=torch.int32),
            block_tables=torch.tensor(tables, dtype=torch.int32),
            slot_mapping=torch.tensor(slots),
            num_decodes=decodes,
            max_query=max(counts),
            max_context=max(contexts),
            block_size=self.block_size,
            max_decode_context=max(contexts[:decodes], default=0),
        )
        tokens = torch.tensor([token for name in names for token in work[name]])
        hidden = self.decoder(tokens, torch.tensor(positions), batch, self.cache)
        rows = self.decoder.logits(hidden).split(counts)
        return dict(zip(names, rows, strict=True))


def randomize(model: transformers.PreTrainedModel, seed: int = 0) -> None:
    """Weights large enough that attention, norms and biases all matter."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = 1 + 0.2 * noise if "norm" in name else 0.25 * noise


def make(config: transformers.PreTrainedConfig) -> transformers.PreTrainedModel:
    auto = transformers.AutoModelForCausalLM
    model: transformers.PreTrainedModel = auto.from_config(config, attn_implementation="eager")
    randomize(model)
    model.eval()
    return model


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Decoder:
    files = ModelFiles(folder.name, folder, None)
    return load_model(
        files, load_config(files), backend=ReferenceBackend(), device=CPU, dtype=dtype
    )


@torch.no_grad()
def oracle_logits(model: transformers.PreTrainedModel, tokens: Sequence[int]) -> Tensor:
    logits: Tensor = model(torch.tensor([list(tokens)])).logits[0]
    return logits


def random_tokens(count: int, seed: int) -> list[int]:
    source = random.Random(seed)
    return [source.randrange(97) for _ in range(count)]


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_gives_the_oracles_logits_whole_chunked_and_one_by_one(
    name: str, tmp_path: Path
) -> None:
    oracle = make(FAMILIES[name])
    oracle.save_pretrained(tmp_path)
    paged = PagedDecoder(load(tmp_path))
    tokens = random_tokens(41, seed=1)
    expected = oracle_logits(oracle, tokens)

    assert_close(paged.step({"whole": tokens})["whole"], expected)
    cuts = [0, 1, 14, 15, 30, 41]
    chunks = [tokens[a:b] for a, b in pairwise(cuts)]
    assert_close(torch.cat([paged.step({"chunked": c})["chunked"] for c in chunks]), expected)
    assert_close(torch.cat([paged.step({"single": [t]})["single"] for t in tokens]), expected)


@pytest.mark.parametrize("name", ["smollm", "mistral-window", "qwen2-window", "qwen3"])
def test_sequences_of_one_batch_do_not_see_each_other(name: str, tmp_path: Path) -> None:
    oracle = make(FAMILIES[name])
    oracle.save_pretrained(tmp_path)
    paged = PagedDecoder(load(tmp_path))
    lengths = {"a": 3, "b": 40, "c": 17, "d": 1, "e": 29}
    tokens = {key: random_tokens(n + 4, seed=n) for key, n in lengths.items()}
    expected = {key: oracle_logits(oracle, row) for key, row in tokens.items()}

    found = paged.step({key: tokens[key][: lengths[key]] for key in "abcd"})
    for key in "abcd":
        assert_close(found[key], expected[key][: lengths[key]])
    # Decodes of unlike contexts, with a prompt beside them in the first step.
    for offset in range(4):
        work = {key: tokens[key][lengths[key] + offset :][:1] for key in "abcd"}
        if offset == 0:
            work["e"] = tokens["e"]
        found = paged.step(work)
        for key in "abcd":
            assert_close(found[key], expected[key][lengths[key] + offset :][:1])
        if offset == 0:
            assert_close(found["e"], expected["e"])


def test_a_block_written_in_a_step_may_be_read_by_another_sequence_of_it(tmp_path: Path) -> None:
    oracle = make(FAMILIES["llama-gqa"])
    oracle.save_pretrained(tmp_path)
    paged = PagedDecoder(load(tmp_path))
    shared, tail = random_tokens(8, seed=3), random_tokens(5, seed=4)
    paged.blocks["owner"] = [paged.free.pop(), paged.free.pop()]
    paged.blocks["reader"] = list(paged.blocks["owner"])
    paged.lengths["reader"] = len(shared)

    found = paged.step({"owner": shared, "reader": tail})

    assert_close(found["reader"], oracle_logits(oracle, shared + tail)[len(shared) :])


def test_bfloat16_stays_near_float32(tmp_path: Path) -> None:
    oracle = make(FAMILIES["smollm"])
    oracle.bfloat16().save_pretrained(tmp_path)
    tokens = random_tokens(32, seed=5)
    narrow = PagedDecoder(load(tmp_path, torch.bfloat16), torch.bfloat16).step({"a": tokens})["a"]
    wide = PagedDecoder(load(tmp_path, torch.float32)).step({"a": tokens})["a"]

    assert narrow.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(narrow, wide, dim=-1).min() > 0.995


def test_a_step_of_decodes_never_waits_for_the_device(tmp_path: Path) -> None:
    """On the meta device a read of any number raises: what a GPU would have to wait for."""
    make(FAMILIES["qwen3-window"]).save_pretrained(tmp_path)
    meta = torch.device("meta")
    with meta:
        decoder = Decoder(load_config(ModelFiles("tiny", tmp_path, None)), ReferenceBackend())
        decoder.finish(meta)
        batch = AttentionBatch(
            query_start=torch.empty(6, dtype=torch.int32),
            context_lens=torch.empty(5, dtype=torch.int32),
            block_tables=torch.empty(5, 8, dtype=torch.int32),
            slot_mapping=torch.empty(5, dtype=torch.int64),
            num_decodes=5,
            max_query=1,
            max_context=30,
            block_size=4,
        )
        tokens = torch.empty(5, dtype=torch.int64)
        cache = KVCache.allocate(decoder.config, 40, 4, meta, torch.float32)
        logits = decoder.logits(decoder(tokens, tokens, batch, cache))
    assert logits.shape == (5, 97)


def smollm2_oracle(path: Path) -> transformers.PreTrainedModel:
    """transformers' own reading of the GGUF file."""
    model: transformers.PreTrainedModel = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )
    model.eval()
    return model


@pytest.mark.slow
def test_the_embedded_model_gives_the_oracles_logits_and_greedy_tokens() -> None:
    files = resolve("smollm2")
    assert files.gguf is not None
    oracle = smollm2_oracle(files.gguf)
    decoder = load_model(
        files, load_config(files), backend=ReferenceBackend(), device=CPU, dtype=torch.float32
    )
    paged = PagedDecoder(decoder)
    # "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n", and a
    # prompt of arbitrary tokens.
    question = [1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198]
    arbitrary = [random.Random(9).randrange(49_152) for _ in range(60)]
    prompts = {"question": question, "arbitrary": arbitrary}

    found = paged.step(prompts)
    sequences = {name: list(prompt) for name, prompt in prompts.items()}
    for name, prompt in prompts.items():
        torch.testing.assert_close(found[name], oracle_logits(oracle, prompt), atol=1e-3, rtol=1e-3)
    for _ in range(12):
        latest = {name: [int(rows[-1].argmax())] for name, rows in found.items()}
        for name, token in latest.items():
            sequences[name] += token
        found = paged.step(latest)
    for name, tokens in sequences.items():
        start = len(prompts[name])
        greedy = oracle_logits(oracle, tokens).argmax(-1)[start - 1 : -1]
        assert tokens[start:] == greedy.tolist()
