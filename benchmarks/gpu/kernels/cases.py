"""What is measured of a fused pass."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.kernels.fused.kernels import FusedKernels
from engine.kernels.fused.sampling import SamplingKernels
from gpu.shapes import LLAMA3_8B


@dataclass(frozen=True, slots=True, eq=False)
class Kit:
    """The kernels of a device for one model, or the reference's."""

    fused: FusedKernels
    sampling: SamplingKernels


Launch = Callable[[Kit], object]
Written = Callable[[], list[Tensor]]

EXACT = 1e-2
"""Twice what it makes of a row to round it and the weights of attention to bfloat16."""


@dataclass(frozen=True, slots=True)
class Case:
    """One pass at one size.

    Attributes:
        name: of the pass and its size.
        bytes_read, bytes_written, flops: what it cannot do without.
        dtype: that products are computed in.
        make: new inputs → what runs the pass with some kernels, and what it writes: rows, in the
            last dimension, or int32 tokens.
        most_error: of any row, relative to its norm; of tokens, the share that may differ.
        model: a name of `gpu.shapes.SHAPES`, whose kernels are taken.
        beside: what its time is compared with.
        least_gain: that it must be faster than ``beside`` by.
        library: whether it is not ours: nothing is compared, and what a library refuses is no
            fault.
        interpreted: whether it is small enough for Triton's interpreter in a trial run.
    """

    name: str
    bytes_read: int
    bytes_written: int
    flops: int
    dtype: torch.dtype
    make: Callable[[], tuple[Launch, Written]]
    most_error: float = EXACT
    model: str = LLAMA3_8B
    beside: "Case | None" = None
    least_gain: float = 0.0
    library: bool = False
    interpreted: bool = False
