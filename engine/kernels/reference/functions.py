"""Every kernel in plain torch: the path of devices without a native one, and its tests' oracle.

Called through the checked functions of the sibling modules, never directly.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.kernels.batch import AttentionBatch
from engine.kernels.reference.walk import DecodeGroup, Prefill

# Keys (and as many values) that a group of decodes gathers at once. On a CPU a group should stay
# in the cache between its gather and its products: at 128 decodes of context 1,000 groups of 1.5
# to 3 MiB take a quarter of the time of one group of all. A GPU only needs a bound on memory.
_CPU_GROUP_BYTES = 2 * 1024**2
_GPU_GROUP_BYTES = 256 * 1024**2
# Rows of a weight that are rounded at a time.
_ROWS = 4096


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x²) + eps) · weight over the last dimension, in float32 inside."""
    return F.rms_norm(x, (x.shape[-1],), weight, eps)


def add_rms_norm_(update: Tensor | None, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Add ``update`` to the float32 ``residual`` in place; return the sum's norm, narrowed."""
    if update is not None:
        residual.add_(update)
    return rms_norm(residual, weight.float(), eps).to(weight.dtype)


def apply_rope(heads: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotate [T, n, d] by [T, 1, d] tables; the first half of ``sines`` is negated."""
    wide = heads.float()
    halves_swapped = wide.roll(heads.shape[-1] // 2, -1)
    return torch.addcmul(wide * cosines, halves_swapped, sines).to(heads.dtype)


def silu_and_mul(gate_up: Tensor) -> Tensor:
    """silu(first half) · second half of the last dimension."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate).mul_(up)


def store_kv(
    keys: Tensor, values: Tensor, key_cache: Tensor, value_cache: Tensor, slots: Tensor
) -> None:
    """Scatter the rows of [T, kv_heads, d] to their slots; what is no finite number becomes 0.

    A block outlives its sequence, and the next one multiplies what it does not see by 0.
    """
    for cache, rows in ((key_cache, keys), (value_cache, values)):
        cache.flatten(0, 1).index_copy_(0, slots, rows.nan_to_num(0, 0, 0))


def paged_attention(
    queries: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    batch: AttentionBatch,
    scale: float,
    window: int | None,
) -> Tensor:
    """Attention of [T, heads, d] queries over the paged cache."""
    token_bytes = key_cache[0, 0].numel() * key_cache.itemsize
    budget = _CPU_GROUP_BYTES if queries.device.type == "cpu" else _GPU_GROUP_BYTES
    plan = batch.plan(window, budget // token_bytes, queries.dtype)
    out = torch.empty(queries.shape, dtype=queries.dtype, device=queries.device)
    for group in plan.decodes:
        answers = _decode(queries.index_select(0, group.rows), key_cache, value_cache, group, scale)
        out.index_copy_(0, group.rows, answers)
    for prefill in plan.prefills:
        out[prefill.rows] = _prefill(queries[prefill.rows], key_cache, value_cache, prefill, scale)
    return out


def _decode(
    queries: Tensor, key_cache: Tensor, value_cache: Tensor, group: DecodeGroup, scale: float
) -> Tensor:
    size, heads, dim = queries.shape
    kv_heads = key_cache.shape[2]
    keys, values = (
        cache.flatten(1).index_select(0, group.blocks).view(size, -1, kv_heads, dim).transpose(1, 2)
        for cache in (key_cache, value_cache)
    )
    # A key head's query heads all see the same keys, so they stand as its rows of queries: four
    # times faster in bfloat16 than heads of one row each with ``enable_gqa``.
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


def draw(
    logits: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    min_p: Tensor,
    uniform: Tensor,
) -> Tensor:
    """int64 [rows] from float32 [rows, vocab] and parameters [rows, 1]; see `draws.draw`."""
    cold = temperature == 0
    probs = torch.softmax(logits / torch.where(cold, 1.0, temperature), dim=-1)
    filtered = ((top_k > 0) | (top_p < 1))[:, 0].nonzero()[:, 0]
    allowed = probs >= min_p * probs.amax(dim=-1, keepdim=True)
    if len(filtered):
        allowed[filtered] &= _head(probs[filtered], top_k[filtered], top_p[filtered])
    sums = probs.masked_fill(~allowed, 0).cumsum(dim=-1)
    total = sums[:, -1:]
    # The product may round up to the total itself, which no cumulative weight passes.
    wanted = torch.minimum(uniform * total, total.nextafter(torch.zeros_like(total)))
    drawn = torch.searchsorted(sums, wanted, right=True)
    # Where everything is banned there is nothing to draw, and some token must be taken.
    sure = cold | ~(total > 0)
    return torch.where(sure, logits.argmax(dim=-1, keepdim=True), drawn)[:, 0]


def _head(probs: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """bool [rows, vocab]: what top-k and then top-p keep."""
    ranked, ids = probs.sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(probs.shape[1], device=probs.device)
    ranked = ranked.masked_fill((top_k > 0) & (rank >= top_k), 0)
    before = ranked.cumsum(dim=-1) - ranked
    mass = top_p * ranked.sum(dim=-1, keepdim=True)
    keep = (ranked > 0) & ((before < mass) | (top_p >= 1))
    return torch.zeros_like(keep).scatter_(1, ids, keep)


def rotate_rows(x: Tensor, by: Tensor, matrix: Tensor, hadamard: Tensor) -> Tensor:
    """Rows of float32 [N, m n] times ``by``; then [n, n] along the last axis and [m, m] across."""
    lines = (x * by).view(-1, hadamard.shape[0]) @ hadamard.T
    return torch.matmul(matrix, lines.view(-1, matrix.shape[0], hadamard.shape[0])).view(x.shape)


def mix(x: Tensor, count: int, apart: int, scale: float) -> Tensor:
    """Fast Walsh-Hadamard transform of [N, width] over runs of ``count`` numbers ``apart``."""
    runs = x.float().reshape(x.shape[0], -1, count, apart)
    half = 1
    while half < count:
        pairs = runs.unflatten(2, (-1, 2, half))  # type: ignore[no-untyped-call]
        low, high = pairs[:, :, :, 0], pairs[:, :, :, 1]
        runs = torch.stack((low + high, low - high), 3).flatten(2, 4)
        half *= 2
    mixed: Tensor = runs.reshape(x.shape) * scale
    return mixed.to(x.dtype)


def quantize_channels(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 values of [N, K] and float32 scales [N], symmetric by row; zero rows have scale 1."""
    wide = weight.detach().float()
    scales = torch.maximum(wide.amax(1), -wide.amin(1)) / 127
    scales = torch.where(scales > 0, scales, 1.0)
    values = torch.empty(wide.shape, dtype=torch.int8, device=wide.device)
    for start in range(0, len(wide), _ROWS):  # whole copies of a head would be large
        part = slice(start, start + _ROWS)
        values[part] = (wide[part] / scales[part, None]).round_()
    return values, scales


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """int8 values of [T, K] and float32 scales [T], symmetric by row."""
    scales = x.float().abs().amax(1) / 127
    inverse = torch.where(scales > 0, 1 / scales, 0.0)
    return (x.float() * inverse[:, None]).round().to(torch.int8), scales


def int8_linear(values: Tensor, scales: Tensor, weight: Tensor, weight_scales: Tensor) -> Tensor:
    """The product of `quantize_rows` and `quantize_channels`, in float32."""
    # float64 holds every int32 exactly, and has a fast product everywhere.
    exact = values.double() @ weight.double().T
    return exact.float() * (weight_scales * scales[:, None])


def quantize_groups(
    weight: Tensor, group: int, bits: int, symmetric: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """uint8 values of [N, K], float32 scales and lows [N, K / group], by rounding to nearest."""
    wide = weight.detach().float().view(weight.shape[0], -1, group)
    top = 2**bits - 1
    if symmetric:
        # The middle is a step, as in GGUF's Q4_0, so one side has one step more.
        scales = wide.abs().amax(2) / (top // 2)
        lows = scales * -(2 ** (bits - 1))
    else:
        lows = wide.amin(2)
        scales = (wide.amax(2) - lows) / top
    scales = torch.where(scales > 0, scales, 1.0)
    values = ((wide - lows[:, :, None]) / scales[:, :, None]).round().clamp(0, top)
    return values.flatten(1).to(torch.uint8), scales, lows


def quantize_row_groups(x: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """int8 values of [T, K] and float32 scales [T, K / group], symmetric by group."""
    wide = x.float().reshape(x.shape[0], x.shape[1] // group, group)
    scales = wide.abs().amax(2) / 127
    inverse = torch.where(scales > 0, 1 / scales, 0.0)
    return (wide * inverse[:, :, None]).round().flatten(1).to(torch.int8), scales


def grouped_linear(
    values: Tensor, scales: Tensor, weight: Tensor, weight_scales: Tensor, weight_lows: Tensor
) -> Tensor:
    """The product of `quantize_row_groups` and `quantize_groups`, each group's sum exact."""
    groups = scales.shape[1]
    group = values.shape[1] // groups
    x = values.view(values.shape[0], groups, group).double().transpose(0, 1)  # [groups, T, group]
    w = weight.view(-1, groups, group).double().permute(1, 2, 0)
    scaled: Tensor = (x @ w) * weight_scales.T[:, None] + x.sum(2, keepdim=True) * weight_lows.T[
        :, None
    ]
    return torch.sum(scaled * scales.T[:, :, None], 0).float()


def quantize_heads(x: Tensor) -> tuple[Tensor, Tensor]:
    """int8 values of [..., d] and float32 scales [...], symmetric by head, as an int8 cache has."""
    scales = x.float().abs().amax(-1) / 127
    inverse = torch.where(scales > 0, 1 / scales, 0.0)
    return (x.float() * inverse[..., None]).round().to(torch.int8), scales
