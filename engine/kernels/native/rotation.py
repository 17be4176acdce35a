"""Rotations of rows in C; see rotation.c."""

import torch
from torch import Tensor

from engine.kernels.native.library import LANES, available, library

_MAX_ODD = 512


def rotates(x: Tensor, odd: int, power: int) -> bool:
    """Whether `rotate_rows_` can do this."""
    dense = x.device.type == "cpu" and x.dtype == torch.float32 and x.is_contiguous()
    return dense and power >= LANES and odd <= _MAX_ODD and available()


def rotate_rows_(x: Tensor, by: Tensor, matrix: Tensor, power: int) -> None:
    """`engine.kernels.reference.functions.rotate_rows`, in place; ask `rotates` first."""
    native = library()
    assert native is not None, "ask rotates() first"
    native.rotate_rows(
        x.data_ptr(),
        x.shape[0],
        matrix.shape[0],
        power,
        by.data_ptr(),
        matrix.data_ptr(),
        torch.get_num_threads(),
    )
