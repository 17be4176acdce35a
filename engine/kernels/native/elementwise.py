"""Norm, rotation and gate in C; see elementwise.c. `None` leaves the work to the reference."""

from ctypes import c_float, c_int64, c_void_p

import torch
from torch import Tensor

from engine.kernels.native.library import LANES, SUFFIXES, library, runs


def add_rms_norm_(
    update: Tensor | None, residual: Tensor, weight: Tensor, eps: float
) -> Tensor | None:
    """`engine.kernels.norm.add_rms_norm_`."""
    tokens, width = residual.shape
    given = (weight, residual) if update is None else (weight, residual, update)
    if width % LANES or not runs(*given):
        return None
    out = torch.empty((tokens, width), dtype=weight.dtype)
    _call(
        "add_rms_norm",
        weight.dtype,
        None if update is None else c_void_p(update.data_ptr()),
        c_void_p(residual.data_ptr()),
        c_void_p(weight.data_ptr()),
        c_void_p(out.data_ptr()),
        c_int64(tokens),
        c_int64(width),
        c_float(eps),
    )
    return out


def silu_and_mul(gate_up: Tensor) -> Tensor | None:
    """`engine.kernels.activation.silu_and_mul`."""
    tokens, width = gate_up.shape[0], gate_up.shape[1] // 2
    if width % LANES or not runs(gate_up):
        return None
    out = torch.empty((tokens, width), dtype=gate_up.dtype)
    _call(
        "silu_and_mul",
        gate_up.dtype,
        c_void_p(gate_up.data_ptr()),
        c_void_p(out.data_ptr()),
        c_int64(tokens),
        c_int64(width),
    )
    return out


def apply_rope(heads: Tensor, cosines: Tensor, sines: Tensor) -> Tensor | None:
    """`engine.kernels.rope.apply_rope`; tokens may stand apart, as in a fused projection."""
    tokens, count, width = heads.shape
    dense = heads.stride(2) == 1 and heads.stride(1) == width
    if width % (2 * LANES) or not dense or heads.dtype not in SUFFIXES or not runs(cosines, sines):
        return None
    out = torch.empty((tokens, count, width), dtype=heads.dtype)
    _call(
        "apply_rope",
        heads.dtype,
        c_void_p(heads.data_ptr()),
        c_int64(heads.stride(0)),
        c_void_p(cosines.data_ptr()),
        c_void_p(sines.data_ptr()),
        c_void_p(out.data_ptr()),
        c_int64(tokens),
        c_int64(count),
        c_int64(width),
    )
    return out


def _call(name: str, dtype: torch.dtype, *arguments: c_void_p | c_int64 | c_float | None) -> None:
    native = library()
    assert native is not None, "runs() was not asked"
    threads = c_int64(torch.get_num_threads())
    getattr(native, f"{name}_{SUFFIXES[dtype]}")(*arguments, threads)
