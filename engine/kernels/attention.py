"""Attention over the paged cache (PagedAttention, Kwon et al. 2023; GQA, Ainslie et al. 2023)."""

import torch
from torch import Tensor

from engine.kernels.backend import Backend
from engine.kernels.batch import AttentionBatch
from engine.kernels.expect import expect


def store_kv(
    backend: Backend,
    keys: Tensor,
    values: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    slot_mapping: Tensor,
) -> None:
    """Write a step's keys and values of one layer into its cache, in place.

    Args:
        backend: computes it.
        keys, values: [T, kv_heads, head_dim], in the cache's dtype.
        key_cache, value_cache: [blocks, block_size, kv_heads, head_dim], contiguous.
        slot_mapping: int64 [T]; ``block * block_size + offset`` of each token.

    Raises:
        ValueError: a shape, dtype or stride is wrong.
    """
    _expect_caches(key_cache, value_cache)
    num_tokens, kv_heads, dim = slot_mapping.shape[0], key_cache.shape[2], key_cache.shape[3]
    expect("keys", keys, (num_tokens, kv_heads, dim), key_cache.dtype)
    expect("values", values, (num_tokens, kv_heads, dim), key_cache.dtype)
    expect("slot_mapping", slot_mapping, (num_tokens,), torch.int64)
    backend.store_kv(keys, values, key_cache, value_cache, slot_mapping)


def paged_attention(
    backend: Backend,
    queries: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    batch: AttentionBatch,
    scale: float,
    sliding_window: int | None = None,
) -> Tensor:
    """softmax(scale · q kᵀ) v, causal, each sequence over its own keys.

    The step's own keys and values are in the cache already: call `store_kv` first.

    Args:
        backend: computes it.
        queries: [T, heads, head_dim]; ``heads`` is a multiple of the cache's, and neighbouring
            query heads share a key head.
        key_cache, value_cache: [blocks, block_size, kv_heads, head_dim], contiguous, of the
            queries' dtype.
        batch: which tokens belong to which sequence, and where their keys are.
        scale: usually ``head_dim ** -0.5``.
        sliding_window: keys a query sees, its own included; ``None`` is all before it.

    Returns:
        [T, heads, head_dim], contiguous.

    Raises:
        ValueError: a shape, dtype or stride is wrong.
    """
    _expect_caches(key_cache, value_cache)
    _, block_size, kv_heads, dim = key_cache.shape
    expect("queries", queries, (batch.num_tokens, None, dim), key_cache.dtype)
    if queries.shape[1] % kv_heads:
        raise ValueError(f"{queries.shape[1]} query heads do not divide among {kv_heads} of keys.")
    if block_size != batch.block_size:
        raise ValueError(f"The cache's blocks hold {block_size}, the batch's {batch.block_size}.")
    if sliding_window is not None and sliding_window < 1:
        raise ValueError(f"A sliding window of {sliding_window} sees nothing.")
    return backend.paged_attention(queries, key_cache, value_cache, batch, scale, sliding_window)


def _expect_caches(key_cache: Tensor, value_cache: Tensor) -> None:
    expect("key_cache", key_cache, (None, None, None, None))
    expect("value_cache", value_cache, tuple(key_cache.shape), key_cache.dtype)
    if not (key_cache.is_contiguous() and value_cache.is_contiguous()):
        raise ValueError("A layer of the cache must be contiguous.")
