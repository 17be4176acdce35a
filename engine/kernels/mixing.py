"""Hadamard mixing of a row's neighbours, so that no channel is much louder than the rest."""

from torch import Tensor

from engine.kernels.expect import expect
from engine.kernels.reference import functions as reference

LANES = 16
MOST = 32


def mix_count(width: int) -> int:
    """How many numbers are mixed with each other in rows of a width: a power of two, 1 for none."""
    vectors = width // LANES if width % LANES == 0 else 1
    return min(vectors & -vectors, MOST)


def mix(x: Tensor, count: int, *, unit: bool = True) -> Tensor:
    """Multiply each row by a Hadamard matrix over numbers that stand 16 apart.

    Args:
        x: [N, width], float32 or bfloat16; each run of ``16 count`` numbers is mixed in itself.
        count: a power of two, as from `mix_count`.
        unit: divide by ``sqrt(count)``, so that the matrix is orthogonal. Without it, to mix twice
            multiplies by ``count``.

    Raises:
        ValueError: the width is no multiple of ``16 count``.
    """
    expect("x", x, (None, None))
    if count == 1:
        return x
    if x.shape[1] % (LANES * count):
        raise ValueError(f"{x.shape[1]} columns do not divide into runs of {LANES * count}.")
    return reference.mix(x, count, LANES, count**-0.5 if unit else 1.0)
