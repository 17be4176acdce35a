"""The launches of attention that the engine ships for, to be compiled ahead or checked."""

from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor

from engine.kernels.fused.tasks import TILE_FIELDS, AttentionTasks
from engine.kernels.fused.tensors import EIGHT_BITS, LayerCache, StepTensors
from engine.kernels.triton.attention.attention import TritonAttention
from engine.kernels.triton.attention.tiles import Capability, row_choices
from engine.kernels.triton.launch import Launch, collect

META = torch.device("meta")
SHAPES = ((32, 8, 128), (16, 8, 128), (9, 3, 64), (32, 8, 96), (8, 1, 256))
"""Query heads, KV heads and head_dim: Llama-3.1-8B, Qwen3-0.6B, SmolLM2-135M, and heads of 96
(Phi-3) and 256 (Gemma)."""
WINDOWED = (32, 8, 128)
"""The shape that is also shipped with a sliding window (Mistral-7B)."""
BLOCK_SIZES = (16, 128)
CACHE_DTYPES = (torch.bfloat16, *EIGHT_BITS)
RARE_DIMS = (96, 256)
"""Heads that are shipped with blocks of 16 alone."""


def shipped_launches(capability: Capability, eight_bit_product: int = 0) -> Iterator[Launch]:
    """Each launch that differs in its compiled code, on meta tensors.

    Args:
        capability: of the device; tiles depend on it.
        eight_bit_product: see `TritonAttention`.
    """
    seen = set()
    for shape, cache_dtype, block_size in product(SHAPES, CACHE_DTYPES, BLOCK_SIZES):
        if shape[2] in RARE_DIMS and block_size != BLOCK_SIZES[0]:
            continue
        for found in _launches(capability, shape, cache_dtype, block_size, eight_bit_product):
            key = (found.kernel.__name__, tuple(sorted(found.constants.items())))
            if key not in seen:
                seen.add(key)
                yield found


def _launches(
    capability: Capability,
    shape: tuple[int, int, int],
    cache_dtype: torch.dtype,
    block_size: int,
    eight_bit_product: int,
) -> list[Launch]:
    heads, kv_heads, dim = shape
    kernels = TritonAttention(heads, kv_heads, dim, 4, capability, META, eight_bit_product)
    prefill_rows, segment_rows = row_choices(capability, heads // kv_heads, dim)
    keys = torch.empty(4, block_size, kv_heads, dim, dtype=cache_dtype, device=META)
    scales = None
    if cache_dtype in EIGHT_BITS:
        scales = torch.empty(4, block_size, kv_heads, device=META)
    cache = LayerCache(keys, keys, scales, scales)
    queries = torch.empty(16, heads, dim, dtype=torch.bfloat16, device=META)
    out = queries.flatten(1)
    index = _ints(32)
    step = StepTensors(index, index, index, index, index, index, _ints(16, 64))
    arrays = {
        "split_keys": index,
        "window_split_keys": index,
        "shared": index,
        "pieces": _ints(16, 2),
        "prefill_tiles": _ints(16, 2),
        "segment_tiles": _ints(16, TILE_FIELDS),
        "members": _ints(16, 2),
    }
    windows = (None, 4096) if shape == WINDOWED and scales is None else (None,)
    with collect() as launches:
        for splits, tiles, window in product((1, 4), (0, 16), windows):
            for prefill, segment in product(prefill_rows, segment_rows):
                tasks = AttentionTasks(
                    num_decodes=8,
                    num_prefills=2,
                    max_decode_context=512,
                    splits=splits,
                    prefill_rows=prefill,
                    prefill_tiles=4,
                    segment_rows=segment,
                    segment_tiles=tiles,
                    window=window,
                )
                kernels.attention(queries, cache, step, tasks.on(arrays), 0.1, window, out)
    return launches


def _ints(*shape: int) -> Tensor:
    return torch.empty(*shape, dtype=torch.int32, device=META)
