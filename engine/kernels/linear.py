"""Dense products, with the weight in the backend's own layout where it has one."""

from torch import Tensor

from engine.kernels.backend import Backend
from engine.kernels.expect import expect


def linear(backend: Backend, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weightᵀ + bias.

    Args:
        backend: computes it.
        x: [T, inputs].
        weight: [outputs, inputs], plain or from `pack_weight` of the same backend.
        bias: [outputs].

    Returns:
        [T, outputs], of x's dtype.

    Raises:
        ValueError: a shape or dtype is wrong.
    """
    expect("x", x, (None, weight.shape[1]), weight.dtype)
    return backend.linear(x, weight, bias)


def pack_weight(backend: Backend, weight: Tensor) -> Tensor:
    """The weight [outputs, inputs] in the layout that `linear` multiplies fastest.

    It may share memory with ``weight``, or be it. What is packed can no longer be read or moved.

    Raises:
        ValueError: the weight is no dense matrix.
    """
    expect("weight", weight, (None, None))
    return backend.pack_weight(weight)
