"""Norms, rotary embedding and the feed-forward's gate in plain torch."""

import torch
import torch.nn.functional as F
from torch import Tensor


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
