"""Rotary position embedding (RoFormer, Su et al. 2021), in the half-split form of Hugging Face."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.config import RopeConfig
from engine.kernels.backend import Backend
from engine.kernels.expect import expect


@dataclass(frozen=True)
class RotaryRows:
    """Cosines and sines of one step's positions, shared by every layer.

    Attributes:
        cosines, sines: float32 [T, 1, head_dim]; both halves of a head have the same angles, and
            the sines of the first half are negated.
    """

    cosines: Tensor
    sines: Tensor


@dataclass(frozen=True)
class RotaryTable:
    """Cosines and sines of every position.

    Attributes:
        cosines, sines: float32 [max_position, head_dim / 2].
        frequencies: float32 [head_dim / 2], radians a position.
    """

    cosines: Tensor
    sines: Tensor
    frequencies: Tensor

    @classmethod
    def build(cls, frequencies: Tensor, max_position: int, device: torch.device) -> "RotaryTable":
        """Tabulate ``position · frequency`` for float32 frequencies [head_dim / 2]."""
        frequencies = frequencies.to(device=device, dtype=torch.float32)
        positions = torch.arange(max_position, dtype=torch.float32, device=device)
        angles = torch.outer(positions, frequencies)
        return cls(angles.cos(), angles.sin(), frequencies)

    def rows(self, positions: Tensor) -> RotaryRows:
        """Look up int64 [T] positions."""
        expect("positions", positions, (None,), torch.int64)
        cosines, sines = self.cosines[positions], self.sines[positions]
        return RotaryRows(
            torch.cat((cosines, cosines), -1).unsqueeze(1),
            torch.cat((-sines, sines), -1).unsqueeze(1),
        )


def apply_rope(backend: Backend, heads: Tensor, rows: RotaryRows) -> Tensor:
    """Rotate query or key heads to their positions; computed in float32.

    Args:
        backend: computes it.
        heads: [T, n, head_dim].
        rows: of the T tokens' positions.

    Returns:
        A new contiguous tensor of the same shape and dtype.

    Raises:
        ValueError: a shape or dtype is wrong.
    """
    num_tokens, _, dim = heads.shape
    expect("heads", heads, (num_tokens, None, dim))
    expect("cosines", rows.cosines, (num_tokens, 1, dim), torch.float32)
    return backend.apply_rope(heads, rows.cosines, rows.sines)


def rotary_frequencies(config: RopeConfig, head_dim: int) -> Tensor:
    """Radians a position, float32 [head_dim / 2], scaled as the configuration says.

    ``linear`` is position interpolation (Chen et al. 2023). ``llama3`` (Llama 3.1's
    ``apply_scaling``) divides low frequencies by the factor, keeps high ones, and blends between.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    frequencies = 1.0 / config.theta**exponents
    if config.scaling == "linear":
        return frequencies / config.factor
    if config.scaling == "llama3":
        return _llama3(frequencies, config)
    return frequencies


def _llama3(frequencies: Tensor, config: RopeConfig) -> Tensor:
    rotations = config.original_max_position * frequencies / (2 * math.pi)
    low, high = config.low_freq_factor, config.high_freq_factor
    share = ((rotations - low) / (high - low)).clamp(0, 1)
    return torch.lerp(frequencies / config.factor, frequencies, share)
