"""Hadamard transforms of rows in plain torch."""

import math

import torch
from torch import Tensor


def hadamard(x: Tensor, count: int, stride: int, scale: float) -> Tensor:
    """Fast Walsh-Hadamard transform of [N, width] over runs of ``count`` numbers ``stride``
    apart."""
    runs = x.float().reshape(x.shape[0], -1, count, stride)
    half = 1
    while half < count:
        pairs = runs.unflatten(2, (-1, 2, half))
        low, high = pairs[:, :, :, 0], pairs[:, :, :, 1]
        runs = torch.stack((low + high, low - high), 3).flatten(2, 4)
        half *= 2
    transformed: Tensor = runs.reshape(x.shape) * scale
    return transformed.to(x.dtype)


def rotate_rows(x: Tensor, by: Tensor, matrix: Tensor) -> Tensor:
    """See `engine.kernels.hadamard.rotate_rows`."""
    odd = matrix.shape[0]
    power = x.shape[1] // odd
    lines = (x * by).view(-1, power) @ _orthogonal(power).T.to(x.device)
    return torch.matmul(matrix, lines.view(-1, odd, power)).view(x.shape)


def _orthogonal(size: int) -> Tensor:
    """The orthogonal Hadamard matrix of a power of two (Sylvester 1867)."""
    matrix = torch.ones(1, 1)
    while matrix.shape[0] < size:
        top = torch.cat((matrix, matrix), 1)
        matrix = torch.cat((top, torch.cat((matrix, -matrix), 1)))
    return matrix / math.sqrt(size)
