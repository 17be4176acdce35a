"""Paged attention in plain torch: blocks are gathered, then multiplied."""

from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.kernels.batch import AttentionBatch
from engine.kernels.reference.walk import AttentionWalk, DecodeGroup, Prefill, make_walk

# Bytes of keys (and as many of values) that a group of decodes gathers at once. On a CPU they
# should stay in the cache between the gather and the products: at 128 decodes of context 1,000,
# groups of 1.5 to 3 MiB take a quarter of the time of a single group. A GPU only needs a bound on
# memory.
_CPU_GROUP_BYTES = 2 * 1024**2
_GPU_GROUP_BYTES = 256 * 1024**2

_Key = tuple[int | None, int, torch.dtype]  # of a walk: window, group tokens, dtype


def store_kv(
    keys: Tensor, values: Tensor, key_cache: Tensor, value_cache: Tensor, slot_mapping: Tensor
) -> None:
    """Scatter the rows of [T, kv_heads, d] to their slots; what is not finite becomes 0.

    The next sequence in a block multiplies by 0 what it does not see, and 0 times NaN is NaN.
    """
    for cache, rows in ((key_cache, keys), (value_cache, values)):
        cache.flatten(0, 1).index_copy_(0, slot_mapping, rows.nan_to_num(0, 0, 0))


class PagedAttention:
    """Attention of [T, heads, d] queries over the paged cache.

    The walk over a step is made for its first layer and kept for the others, as long as the batch
    lives.
    """

    def __init__(self) -> None:
        self._walks: WeakKeyDictionary[AttentionBatch, dict[_Key, AttentionWalk]] = (
            WeakKeyDictionary()
        )

    def __call__(
        self,
        queries: Tensor,
        key_cache: Tensor,
        value_cache: Tensor,
        batch: AttentionBatch,
        scale: float,
        sliding_window: int | None,
    ) -> Tensor:
        """See `engine.kernels.attention.paged_attention`."""
        token_bytes = key_cache[0, 0].numel() * key_cache.itemsize
        budget = _CPU_GROUP_BYTES if queries.device.type == "cpu" else _GPU_GROUP_BYTES
        walk = self._walk(batch, (sliding_window, budget // token_bytes, queries.dtype))
        caches = key_cache, value_cache
        out = torch.empty(queries.shape, dtype=queries.dtype, device=queries.device)
        for group in walk.decodes:
            found = _decode(queries.index_select(0, group.rows), *caches, group, scale)
            out.index_copy_(0, group.rows, found)
        for prefill in walk.prefills:
            out[prefill.rows] = _prefill(queries[prefill.rows], *caches, prefill, scale)
        return out

    def _walk(self, batch: AttentionBatch, key: _Key) -> AttentionWalk:
        walks = self._walks.setdefault(batch, {})
        if key not in walks:
            walks[key] = make_walk(batch, *key)
        return walks[key]


def _decode(
    queries: Tensor, key_cache: Tensor, value_cache: Tensor, group: DecodeGroup, scale: float
) -> Tensor:
    size, heads, dim = queries.shape
    kv_heads = key_cache.shape[2]
    keys, values = (
        cache.flatten(1).index_select(0, group.blocks).view(size, -1, kv_heads, dim).transpose(1, 2)
        for cache in (key_cache, value_cache)
    )
    # The query heads that share a key head become its rows of queries: in bfloat16 four times
    # faster than ``enable_gqa`` with one row a head.
    rows = queries.view(size, kv_heads, heads // kv_heads, dim)
    mask = group.mask.expand(-1, -1, rows.shape[2], -1)
    out = F.scaled_dot_product_attention(rows, keys, values, attn_mask=mask, scale=scale)
    return out.reshape(size, heads, dim)


def _prefill(
    queries: Tensor, key_cache: Tensor, value_cache: Tensor, prefill: Prefill, scale: float
) -> Tensor:
    keys, values = (
        cache.index_select(0, prefill.blocks)
        .flatten(0, 1)[: prefill.num_keys]
        .transpose(0, 1)
        .unsqueeze(0)
        for cache in (key_cache, value_cache)
    )
    out = F.scaled_dot_product_attention(
        queries.transpose(0, 1).unsqueeze(0),
        keys,
        values,
        attn_mask=prefill.mask,
        is_causal=prefill.mask is None,
        scale=scale,
        enable_gqa=queries.shape[1] != key_cache.shape[2],
    )
    return out[0].transpose(0, 1)
