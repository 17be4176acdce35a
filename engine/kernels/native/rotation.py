"""Rotations and transforms of rows in C; see weights.c."""

import torch
from torch import Tensor

from engine.kernels.native.library import LANES, library

_MAX_ODD = 512


def rotates(x: Tensor, matrix: Tensor) -> bool:
    """Whether `rotate_rows_` can do this."""
    odd = matrix.shape[0]
    dense = x.device.type == "cpu" and x.dtype == torch.float32 and x.is_contiguous()
    return dense and x.shape[1] // odd >= LANES and odd <= _MAX_ODD


def rotate_rows_(x: Tensor, by: Tensor, matrix: Tensor, threads: int) -> None:
    """`engine.kernels.hadamard.rotate_rows`, in place; ask `rotates` first."""
    native = library()
    assert native is not None, "ask whether the kernels are available first"
    odd = matrix.shape[0]
    native.rotate_rows(
        x.data_ptr(),
        x.shape[0],
        odd,
        x.shape[1] // odd,
        by.data_ptr(),
        matrix.data_ptr(),
        threads,
    )


def transforms(x: Tensor, stride: int) -> bool:
    """Whether `hadamard_` can do this."""
    dense = x.device.type == "cpu" and x.dtype == torch.float32 and x.is_contiguous()
    return dense and stride == LANES


def hadamard_(x: Tensor, count: int, scale: float, threads: int) -> None:
    """`engine.kernels.hadamard.hadamard`, in place and times ``scale``; ask `transforms` first."""
    native = library()
    assert native is not None, "ask whether the kernels are available first"
    native.hadamard_rows(x.data_ptr(), x.shape[0], x.shape[1], count, scale, threads)
