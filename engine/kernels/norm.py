"""Root-mean-square layer norm (Zhang and Sennrich 2019)."""

import torch
from torch import Tensor

from engine.kernels.backend import Backend
from engine.kernels.expect import expect


def rms_norm(backend: Backend, x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x²) + eps) · weight over the last dimension, computed in float32.

    Args:
        backend: computes it.
        x: [..., d].
        weight: [d], of the same dtype.
        eps: added to the mean of squares.

    Returns:
        A new tensor of x's shape and dtype.

    Raises:
        ValueError: a shape or dtype is wrong.
    """
    expect("weight", weight, (x.shape[-1],), x.dtype)
    return backend.rms_norm(x, weight, eps)


def add_rms_norm_(
    backend: Backend, update: Tensor | None, residual: Tensor, weight: Tensor, eps: float
) -> Tensor:
    """Add ``update`` to ``residual`` in place, and return the norm of the sum.

    Args:
        backend: computes it.
        update: [T, d], of the weight's dtype; ``None`` adds nothing.
        residual: float32 [T, d]; becomes ``residual + update``.
        weight: [d].
        eps: as in `rms_norm`.

    Returns:
        A new tensor [T, d] of the weight's dtype.

    Raises:
        ValueError: a shape or dtype is wrong.
    """
    expect("residual", residual, (None, weight.shape[0]), torch.float32)
    if update is not None:
        expect("update", update, tuple(residual.shape), weight.dtype)
    return backend.add_rms_norm_(update, residual, weight, eps)
