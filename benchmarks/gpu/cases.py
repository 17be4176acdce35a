"""What is measured of a fused pass."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.kernels.fused.kernels import FusedKernels

Launch = Callable[[FusedKernels], object]
Written = Callable[[], list[Tensor]]


@dataclass(frozen=True, slots=True)
class Case:
    """One pass at one size.

    Attributes:
        name: of the pass and its size.
        bytes_read, bytes_written, flops: what it cannot do without.
        dtype: that products are computed in.
        make: new inputs → what runs the pass with some kernels, and what it writes.
    """

    name: str
    bytes_read: int
    bytes_written: int
    flops: int
    dtype: torch.dtype
    make: Callable[[], tuple[Launch, Written]]
