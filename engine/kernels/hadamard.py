"""Orthogonal transforms of rows that spread an outlier channel over its neighbours."""

import torch
from torch import Tensor

from engine.kernels.backend import Backend
from engine.kernels.expect import expect

STRIDE = 16  # numbers between two that are combined: the kernels in C combine whole vectors
MAX_COUNT = 32


def hadamard_count(width: int) -> int:
    """How many numbers `hadamard` combines in rows of a width: a power of two, 1 for none."""
    vectors = width // STRIDE if width % STRIDE == 0 else 1
    return min(vectors & -vectors, MAX_COUNT)


def hadamard(backend: Backend, x: Tensor, count: int, *, unit: bool = True) -> Tensor:
    """Multiply each row by a block-diagonal matrix of Hadamard matrices.

    Each run of ``16 count`` numbers is transformed by itself, and in it numbers 16 apart with each
    other.

    Args:
        backend: computes it.
        x: [N, width], float32 or bfloat16.
        count: a power of two, as from `hadamard_count`.
        unit: divide by ``sqrt(count)``, so that the matrix is orthogonal and its own inverse.
            Without it, two transforms multiply by ``count``.

    Raises:
        ValueError: the width is no multiple of ``16 count``.
    """
    expect("x", x, (None, None))
    if count == 1:
        return x
    if x.shape[1] % (STRIDE * count):
        raise ValueError(f"{x.shape[1]} columns do not divide into runs of {STRIDE * count}.")
    return backend.hadamard(x, count, STRIDE, count**-0.5 if unit else 1.0)


def rotate_rows(backend: Backend, x: Tensor, by: Tensor, matrix: Tensor) -> Tensor:
    """Multiply each row elementwise by ``by``, then by an orthogonal matrix of its whole width.

    A row of width ``odd · power`` is a table of ``odd`` lines. The orthogonal Hadamard matrix of
    size ``power`` is applied along its lines, ``matrix`` across them.

    Args:
        backend: computes it.
        x: float32 [N, odd · power], contiguous; ``power`` is a power of two.
        by: float32 [odd · power].
        matrix: float32 [odd, odd], orthogonal.

    Returns:
        float32 [N, odd · power]; it may be ``x`` itself, changed.

    Raises:
        ValueError: a shape or dtype is wrong.
    """
    odd = matrix.shape[0]
    expect("matrix", matrix, (odd, odd), torch.float32)
    expect("by", by, (None,), torch.float32)
    expect("x", x, (None, by.shape[0]), torch.float32)
    power, rest = divmod(by.shape[0], odd)
    if rest or power & (power - 1):
        raise ValueError(f"{by.shape[0]} columns are not {odd} times a power of two.")
    return backend.rotate_rows(x, by, matrix)
