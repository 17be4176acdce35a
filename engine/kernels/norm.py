"""Root-mean-square layer norm (Zhang and Sennrich 2019)."""

from torch import Tensor

from engine.kernels import reference
from engine.kernels.checks import expect


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x²) + eps) · weight over the last dimension, computed in float32.

    Args:
        x: [..., d].
        weight: [d], of the same dtype.
        eps: added to the mean of squares.

    Returns:
        A new tensor of x's shape and dtype.

    Raises:
        ValueError: a shape or dtype is wrong.
    """
    expect("weight", weight, (x.shape[-1],), x.dtype)
    return reference.rms_norm(x, weight, eps)


def add_rms_norm_(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Add ``x`` to ``residual`` in place, and return the norm of the sum.

    Args:
        x: [T, d].
        residual: [T, d]; becomes ``residual + x``.
        weight: [d].
        eps: as in `rms_norm`.

    Returns:
        A new tensor [T, d].

    Raises:
        ValueError: a shape or dtype is wrong.
    """
    expect("residual", residual, tuple(x.shape), x.dtype)
    expect("weight", weight, (x.shape[-1],), x.dtype)
    return reference.add_rms_norm_(x, residual, weight, eps)
