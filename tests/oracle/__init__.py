"""Tiny models of transformers, and what a decoder must be to equal them."""

from typing import Any

import torch
import transformers
from torch import Tensor

from engine.cache.kv_cache import KVCache
from engine.kernels.batch import AttentionBatch
from engine.models.decoder import Decoder

CPU = torch.device("cpu")
TINY: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
}
TOKENS = [3, 60, 11, 42, 7, 7, 0, 33, 19]

Model = transformers.PreTrainedModel


def make(config: transformers.PreTrainedConfig) -> Model:
    auto = transformers.AutoModelForCausalLM
    model: Model = auto.from_config(config, attn_implementation="eager")
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = 1 + 0.2 * noise if "norm" in name else 0.2 * noise
    model.eval()
    return model


def logits(decoder: Decoder) -> Tensor:
    """Of every position of `TOKENS`, in one step."""
    count = len(TOKENS)
    cache = KVCache.allocate(decoder.config, 1, 16, CPU, decoder.embedding.dtype)
    batch = AttentionBatch(
        query_start=torch.tensor([0, count], dtype=torch.int32),
        context_lens=torch.tensor([count], dtype=torch.int32),
        block_tables=torch.zeros(1, 1, dtype=torch.int32),
        slot_mapping=torch.arange(count),
        num_decodes=0,
        max_query=count,
        max_context=count,
        block_size=16,
    )
    hidden = decoder(torch.tensor(TOKENS), torch.arange(count), batch, cache)
    return decoder.logits(hidden)


@torch.no_grad()
def assert_equals_oracle(decoder: Decoder, oracle: Model) -> None:
    expected = oracle(torch.tensor([TOKENS])).logits[0]
    torch.testing.assert_close(logits(decoder), expected, atol=1e-4, rtol=1e-4)
