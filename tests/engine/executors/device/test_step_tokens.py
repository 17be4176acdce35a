"""A step has as many tokens as a card has room and use for, and says why."""

from pathlib import Path

import pytest
import torch
import transformers

from engine.config import ModelConfig, RopeConfig
from engine.executors.device.buffers import RowDtypes, buffer_bytes, make_buffers
from engine.executors.device.step_tokens import step_tokens
from engine.executors.machine import GIB
from oracle import make
from standin import start

META = torch.device("meta")


def shape(hidden: int, inner: int, heads: int, kv_heads: int, dim: int, vocab: int) -> ModelConfig:
    return ModelConfig(
        family="llama",
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=inner,
        num_layers=2,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=dim,
        max_position=131_072,
        rms_norm_eps=1e-5,
        rope=RopeConfig(),
        tie_embeddings=False,
    )


SMOLLM2 = shape(576, 1536, 9, 3, 64, 49_152)
QWEN3_600M = shape(1024, 3072, 16, 8, 128, 151_936)
LLAMA3_8B = shape(4096, 14_336, 32, 8, 128, 128_256)
LLAMA3_70B = shape(8192, 28_672, 64, 8, 128, 128_256)
# Usable GiB, of which weights leave some free, and multiprocessors.
H200, H100, A100, L4, T4 = (139, 132), (79, 132), (39, 108), (22, 58), (14.5, 40)


@pytest.mark.parametrize(
    ("model", "card", "weights", "tokens", "why"),
    [
        (QWEN3_600M, H200, 1.2, 16_384, "take 1.1 of 137.8 GiB free, for 132 multiprocessors"),
        (LLAMA3_8B, H200, 15, 16_384, "for 132 multiprocessors"),
        (LLAMA3_70B, H200, 66, 8_192, "activations of 16,384 would take 4.8 of 73.0 GiB free"),
        (LLAMA3_8B, H100, 15, 16_384, "for 132 multiprocessors"),
        (LLAMA3_70B, H100, 66, 8_192, "activations of 16,384 would take"),
        (QWEN3_600M, A100, 1.2, 16_384, "for 108 multiprocessors"),
        (LLAMA3_8B, A100, 15, 8_192, "activations of 16,384 would take 2.4 of 24.0 GiB free"),
        (SMOLLM2, L4, 0.3, 8_192, "enough for 58 multiprocessors"),
        (LLAMA3_8B, L4, 15, 8_192, "enough for 58 multiprocessors"),
        (LLAMA3_8B, L4, 18, 4_096, "whose activations take 0.9 of 4.0 GiB free"),
        (QWEN3_600M, T4, 1.2, 8_192, "enough for 40 multiprocessors"),
        (LLAMA3_8B, T4, 13.5, 2_048, "whose activations take 0.7 of 1.0 GiB free"),
    ],
)
def test_cards_get_steps_by_memory_and_multiprocessors(
    model: ModelConfig, card: tuple[float, int], weights: float, tokens: int, why: str
) -> None:
    memory, multiprocessors = card
    free = int((memory - weights) * GIB)
    found, reason = step_tokens(model, torch.bfloat16, 1024, free, multiprocessors)
    assert found == tokens
    assert reason.startswith(f"{tokens:,} tokens a step, ")
    assert why in reason


@pytest.mark.parametrize("model", [SMOLLM2, LLAMA3_8B, LLAMA3_70B])
def test_no_step_of_more_than_the_fewest_tokens_takes_much_of_the_memory(
    model: ModelConfig,
) -> None:
    found = []
    for gib in range(1, 141):
        tokens, _ = step_tokens(model, torch.bfloat16, 1024, gib * GIB, 132)
        share = buffer_bytes(model, tokens, 1024, torch.bfloat16) / (gib * GIB)
        assert share <= (1 / 16 if tokens == 16_384 else 1 / 4) or tokens == 2_048
        found.append(tokens)
    assert found == sorted(found), "more memory is never a smaller step"
    assert found[-1] == 16_384


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.int8, torch.float8_e4m3fn])
@pytest.mark.parametrize(("tokens", "rows"), [(16_384, 1024), (64, 64)])
def test_a_steps_bytes_are_those_of_its_buffers(kind: torch.dtype, tokens: int, rows: int) -> None:
    model, dtype = LLAMA3_8B, torch.bfloat16
    plain = buffer_bytes(model, tokens, rows, dtype)
    hidden, inner, width, qkv = 4096, 14_336, 4096, 6144
    wide = max(2 * 2 * tokens * inner, 4 * rows * model.vocab_size)
    each = 4 * hidden + 2 * (3 * hidden + qkv + 2 * width + inner)
    assert plain == tokens * each + wide + rows * (6 * hidden + 2 * width)
    rounded = make_buffers(model, tokens, rows, dtype, RowDtypes(kind, kind), META).nbytes
    assert rounded <= plain


def test_an_engine_that_is_told_nothing_says_what_it_chose(tmp_path: Path) -> None:
    llama = transformers.LlamaConfig(
        vocab_size=97,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=1,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    settings = {"max_batch_tokens": None, "warm_up": False}
    core = start(make(llama), tmp_path, **settings)
    assert core.info.max_batch_tokens == 8_192
    assert "8,192 tokens a step, enough for 8 multiprocessors" in core.info.reasons
    told = start(make(llama), tmp_path, max_batch_tokens=40, warm_up=False)
    assert not any("tokens a step" in reason for reason in told.info.reasons)
