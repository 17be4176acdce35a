"""The gate of the feed-forward layer (SwiGLU, Shazeer 2020)."""

from torch import Tensor

from engine.kernels.backend import Backend
from engine.kernels.expect import expect


def silu_and_mul(backend: Backend, gate_up: Tensor) -> Tensor:
    """silu(gate) · up.

    Args:
        backend: computes it.
        gate_up: [T, 2 d]; the gate's columns, then the other factor's.

    Returns:
        [T, d], contiguous, of the same dtype.

    Raises:
        ValueError: the last dimension is odd or not dense.
    """
    expect("gate_up", gate_up, (None, None))
    if gate_up.shape[1] % 2:
        raise ValueError(f"gate_up has {gate_up.shape[1]} columns, which do not halve.")
    return backend.silu_and_mul(gate_up)
