"""The fused passes in plain torch: the oracle of Triton's, and what a stand-in device computes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.kernels.fused.kernels import HeadNorms
from engine.kernels.fused.tasks import AttentionTasks
from engine.kernels.fused.tensors import Activations, LayerCache, StepTensors
from engine.kernels.fused.weights import DeviceWeight, Float8Weight, Int4Weight
from engine.kernels.grouped import GroupedWeight
from engine.kernels.hadamard import STRIDE
from engine.kernels.int8 import Int8Weight
from engine.kernels.reference.elementwise import apply_rope, rms_norm
from engine.kernels.reference.transforms import hadamard
from engine.kernels.rope import RotaryTable

LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}


class ReferenceFused:
    """See `engine.kernels.fused.kernels.FusedKernels`."""

    def embed(
        self, token_ids: Tensor, last_tokens: Tensor, table: Tensor, residual: Tensor
    ) -> None:
        """See `FusedKernels.embed`."""
        sampled = last_tokens[(-1 - token_ids).clamp_min(0)]
        residual.copy_(table[torch.where(token_ids < 0, sampled, token_ids)])

    def add_norm(
        self, update: Tensor | None, residual: Tensor, weight: Tensor, eps: float, out: Activations
    ) -> None:
        """See `FusedKernels.add_norm`."""
        if update is not None:
            residual.add_(update)
        self.round_rows(rms_norm(residual, weight.float(), eps), out)

    def rotate_and_store(
        self,
        qkv: Tensor,
        norms: HeadNorms | None,
        rotary: RotaryTable,
        step: StepTensors,
        cache: LayerCache,
        queries: Tensor,
    ) -> None:
        """See `FusedKernels.rotate_and_store`."""
        count, heads, dim = queries.shape
        kv_heads = cache.keys.shape[2]
        wide = qkv[:count].float().unflatten(1, (-1, dim))
        rotated, values = wide[:, : heads + kv_heads], wide[:, heads + kv_heads :]
        if norms is not None:
            of_queries = rms_norm(rotated[:, :heads], norms.query.float(), norms.eps)
            of_keys = rms_norm(rotated[:, heads:], norms.key.float(), norms.eps)
            rotated = torch.cat((of_queries, of_keys), dim=1)
        rows = rotary.rows(step.positions[:count].long())
        rotated = apply_rope(rotated, rows.cosines, rows.sines)
        queries.copy_(rotated[:, :heads])
        places = step.cache_slots[:count].long()
        live = places >= 0
        keys, values = rotated[live, heads:], values[live]
        _store(keys, cache.keys, cache.key_scales, places[live])
        _store(values, cache.values, cache.value_scales, places[live])

    def gate(self, gate_up: Tensor, out: Activations, hadamard_count: int = 1) -> None:
        """See `FusedKernels.gate`."""
        gate, up = gate_up.float().chunk(2, dim=-1)
        inner = F.silu(gate) * up
        if hadamard_count > 1:
            inner = hadamard(inner, hadamard_count, STRIDE, 1.0)
        self.round_rows(inner, out)

    def round_rows(self, x: Tensor, out: Activations) -> None:
        """See `FusedKernels.round_rows`."""
        if out.scales is None:
            out.values.copy_(x)
            return
        values, scales = _rounded(x.float(), out.values.dtype)
        out.values.copy_(values)
        out.scales.copy_(scales)

    def pack(self, weight: DeviceWeight) -> DeviceWeight:
        """See `FusedKernels.pack`."""
        return weight

    def product(
        self, x: Activations, weight: DeviceWeight, bias: Tensor | None, out: Tensor
    ) -> None:
        """See `FusedKernels.product`."""
        rows = x.values.float()
        if x.scales is not None:
            rows = rows * x.scales[:, None]
        match weight:
            case Int8Weight() | Float8Weight() | GroupedWeight():
                wide = weight.dequantize()
            case Tensor():
                wide = weight.float()
            case Int4Weight():
                raise TypeError("pack() of these kernels makes no Int4Weight.")
        out.copy_(F.linear(rows, wide, None if bias is None else bias.float()))

    def attention(
        self,
        queries: Tensor,
        cache: LayerCache,
        step: StepTensors,
        tasks: AttentionTasks,
        scale: float,
        sliding_window: int | None,
        out: Tensor,
    ) -> None:
        """See `FusedKernels.attention`; one sequence after the other."""
        block_size = cache.keys.shape[1]
        starts, contexts, slots = (
            x.tolist() for x in (step.query_start, step.contexts, step.slots)
        )
        for index in range(tasks.num_decodes + tasks.num_prefills):
            start, end, context = starts[index], starts[index + 1], contexts[index]
            if context == 0 or start == end:
                continue
            blocks = step.block_tables[slots[index], : -(-context // block_size)].long()
            keys = _read(cache.keys, cache.key_scales, blocks, context)
            values = _read(cache.values, cache.value_scales, blocks, context)
            distance = torch.arange(context - (end - start), context)[:, None] - torch.arange(
                context
            )
            seen = distance >= 0
            if sliding_window is not None:
                seen &= distance < sliding_window
            found = F.scaled_dot_product_attention(
                queries[start:end].float().transpose(0, 1),
                keys,
                values,
                attn_mask=seen.to(queries.device),
                scale=scale,
                enable_gqa=True,
            )
            out[start:end] = found.transpose(0, 1).flatten(1).to(out.dtype)


def _rounded(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Values and scales of the last dimension's rows, each with its own scale.

    Rows that are too small for a normal number as their scale count as rows of zeros. A row that
    is not finite has values 0 and a scale that is not finite.
    """
    scales = x.abs().nan_to_num(nan=torch.inf, posinf=torch.inf).amax(-1) / LARGEST[dtype]
    scales = torch.where(scales < torch.finfo(torch.float32).tiny, 0.0, scales)
    usable = (scales > 0) & scales.isfinite()
    inverse = torch.where(usable, 1 / scales, 0.0)
    scaled = torch.where(usable[..., None], x * inverse[..., None], 0.0)
    return (scaled.round() if dtype == torch.int8 else scaled).to(dtype), scales


def _store(rows: Tensor, cache: Tensor, scales: Tensor | None, places: Tensor) -> None:
    """Write [n, kv_heads, d] to places in a layer's cache, 0 for what is not finite there."""
    if scales is None:
        cache.flatten(0, 1)[places] = rows.to(cache.dtype).nan_to_num(0, 0, 0)
        return
    values, found = _rounded(rows.nan_to_num(0, 0, 0), cache.dtype)
    cache.flatten(0, 1)[places] = values
    scales.flatten(0, 1)[places] = found


def _read(cache: Tensor, scales: Tensor | None, blocks: Tensor, count: int) -> Tensor:
    """float32 [kv_heads, count, d] of the first tokens in these blocks."""
    rows = cache[blocks].flatten(0, 1)[:count].float()
    if scales is not None:
        rows = rows * scales[blocks].flatten(0, 1)[:count, :, None]
    return rows.transpose(0, 1)
