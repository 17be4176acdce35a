"""The checks that every public kernel makes of its arguments. A failure is a bug in the caller."""

import torch
from torch import Tensor


def expect(
    name: str, tensor: Tensor, shape: tuple[int | None, ...], dtype: torch.dtype | None = None
) -> None:
    """Check a tensor's shape (``None`` matches any length), its dtype, and that its rows are dense.

    Raises:
        ValueError: one of them is wrong; the message names the argument.
    """
    found = tensor.shape
    if len(found) != len(shape) or any(
        want is not None and want != have for want, have in zip(shape, found, strict=True)
    ):
        raise ValueError(f"{name} must be of shape {shape}, not {tuple(found)}.")
    if dtype is not None and tensor.dtype != dtype:
        raise ValueError(f"{name} must be {dtype}, not {tensor.dtype}.")
    if found and found[-1] > 1 and tensor.stride(-1) != 1:
        raise ValueError(f"{name} must be dense in its last dimension.")
