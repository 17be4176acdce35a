"""Rounding of weights to 8 bits in C; see weights.c."""

import torch
from torch import Tensor

from engine.kernels.native.library import LANES, library


def rounds(weight: Tensor) -> bool:
    """Whether `quantize_channels` can do this."""
    dense = weight.dtype == torch.float32 and weight.is_contiguous()
    return weight.device.type == "cpu" and dense and weight.shape[1] % LANES == 0


def quantize_channels(weight: Tensor, threads: int) -> tuple[Tensor, Tensor]:
    """int8 values of [N, K] and float32 scales [N], symmetric by row; zero rows have scale 1.

    Ask `rounds` first.
    """
    native = library()
    assert native is not None, "ask whether the kernels are available first"
    values = torch.empty(weight.shape, dtype=torch.int8)
    scales = torch.empty(len(weight), dtype=torch.float32)
    native.quantize_channels(
        weight.data_ptr(), *weight.shape, values.data_ptr(), scales.data_ptr(), threads
    )
    return values, scales
