"""Rows to bytes and their product with 8-bit weights in C; see int8.c.

`None` leaves the work to the reference.
"""

from ctypes import POINTER, Structure, byref, c_int64, c_void_p

import torch
from torch import Tensor

from engine.kernels.native.library import LANES, SUFFIXES, available, library

PANEL = 64


class _Product(Structure):
    _fields_ = (
        ("rows", c_void_p),
        ("scales", c_void_p),
        ("zeros", c_void_p),
        ("panels", c_void_p),
        ("weight_scales", c_void_p),
        ("weight_sums", c_void_p),
        ("bias", c_void_p),
        ("out", c_void_p),
        ("tokens", c_int64),
        ("inputs", c_int64),
        ("outputs", c_int64),
    )


def quantise_rows(x: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """`engine.kernels.int8.quantise_rows`; rows may stand apart."""
    tokens, width = x.shape
    if width % LANES or x.device.type != "cpu" or x.dtype not in SUFFIXES or not available():
        return None
    values = torch.empty((tokens, width), dtype=torch.uint8)
    scales = torch.empty(tokens)
    zeros = torch.empty(tokens, dtype=torch.int32)
    native = library()
    assert native is not None
    getattr(native, f"quantise_rows_{SUFFIXES[x.dtype]}")(
        c_void_p(x.data_ptr()),
        c_int64(x.stride(0)),
        c_void_p(values.data_ptr()),
        c_void_p(scales.data_ptr()),
        c_void_p(zeros.data_ptr()),
        c_int64(tokens),
        c_int64(width),
        c_int64(torch.get_num_threads()),
    )
    return values, scales, zeros


def pack_panels(weight: Tensor) -> Tensor:
    """int8 [outputs, inputs] → [panels, inputs / 4, 64, 4], the last panel filled with zeros."""
    outputs, inputs = weight.shape
    panels = -(-outputs // PANEL)
    padded = torch.zeros((panels * PANEL, inputs), dtype=torch.int8)
    padded[:outputs] = weight
    return padded.view(panels, PANEL, inputs // 4, 4).permute(0, 2, 1, 3).contiguous()


def int8_linear(
    values: Tensor,
    scales: Tensor,
    zeros: Tensor,
    panels: Tensor,
    weight_scales: Tensor,
    weight_sums: Tensor,
    bias: Tensor,
    out: Tensor,
) -> None:
    """`engine.kernels.int8.int8_linear` into ``out``; the caller has checked all shapes.

    The last three before ``out`` are padded to whole panels, as the panels are.
    """
    native = library()
    assert native is not None, "the weight was not packed"
    product = _Product(
        values.data_ptr(),
        scales.data_ptr(),
        zeros.data_ptr(),
        panels.data_ptr(),
        weight_scales.data_ptr(),
        weight_sums.data_ptr(),
        bias.data_ptr(),
        out.data_ptr(),
        *values.shape,
        out.shape[1],
    )
    function = getattr(native, f"int8_linear_{SUFFIXES[out.dtype]}")
    function.argtypes = (POINTER(_Product), c_int64)
    function.restype = None
    function(byref(product), torch.get_num_threads())
