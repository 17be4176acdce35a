"""Rounding to few bits, and products of what was rounded, in plain torch.

For checking, not for speed: sums are exact because they are taken in float64.
"""

import torch
from torch import Tensor

_ROWS = 4096  # of a weight that are rounded at a time


def quantize_channels(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 values of [N, K] and float32 scales [N], symmetric by row; zero rows have scale 1."""
    wide = weight.detach().float()
    scales = torch.maximum(wide.amax(1), -wide.amin(1)) / 127
    scales = torch.where(scales > 0, scales, 1.0)
    values = torch.empty(wide.shape, dtype=torch.int8, device=wide.device)
    for start in range(0, len(wide), _ROWS):  # whole copies of a head would be large
        rows = slice(start, start + _ROWS)
        values[rows] = (wide[rows] / scales[rows, None]).round_()
    return values, scales


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """int8 values of [T, K] and float32 scales [T], symmetric by row."""
    scales = x.float().abs().amax(1) / 127
    inverse = torch.where(scales > 0, 1 / scales, 0.0)
    return (x.float() * inverse[:, None]).round().to(torch.int8), scales


def int8_linear(values: Tensor, scales: Tensor, weight: Tensor, weight_scales: Tensor) -> Tensor:
    """The product of `quantize_rows` and `quantize_channels`, in float32."""
    # float64 holds every int32 exactly, and has a fast product everywhere.
    exact = values.double() @ weight.double().T
    return exact.float() * (weight_scales * scales[:, None])


def quantize_groups(
    weight: Tensor, group: int, bits: int, symmetric: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """uint8 values of [N, K], float32 scales and lows [N, K / group], by rounding to nearest."""
    wide = weight.detach().float().view(weight.shape[0], -1, group)
    top = 2**bits - 1
    if symmetric:
        # The middle is a step, as in GGUF's Q4_0, so one side has one step more.
        scales = wide.abs().amax(2) / (top // 2)
        lows = scales * -(2 ** (bits - 1))
    else:
        lows = wide.amin(2)
        scales = (wide.amax(2) - lows) / top
    scales = torch.where(scales > 0, scales, 1.0)
    values = ((wide - lows[:, :, None]) / scales[:, :, None]).round().clamp(0, top)
    return values.flatten(1).to(torch.uint8), scales, lows


def quantize_row_groups(x: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """int8 values of [T, K] and float32 scales [T, K / group], symmetric by group."""
    wide = x.float().reshape(x.shape[0], x.shape[1] // group, group)
    scales = wide.abs().amax(2) / 127
    inverse = torch.where(scales > 0, 1 / scales, 0.0)
    return (wide * inverse[:, :, None]).round().flatten(1).to(torch.int8), scales


def grouped_linear(
    values: Tensor, scales: Tensor, weight: Tensor, weight_scales: Tensor, weight_lows: Tensor
) -> Tensor:
    """The product of `quantize_row_groups` and `quantize_groups`, each group's sum exact."""
    groups = scales.shape[1]
    group = values.shape[1] // groups
    x = values.view(values.shape[0], groups, group).double().transpose(0, 1)  # [groups, T, group]
    w = weight.view(-1, groups, group).double().permute(1, 2, 0)
    scaled: Tensor = (x @ w) * weight_scales.T[:, None] + x.sum(2, keepdim=True) * weight_lows.T[
        :, None
    ]
    return torch.sum(scaled * scales.T[:, :, None], 0).float()
