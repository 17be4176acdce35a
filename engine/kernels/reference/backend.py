"""The reference as a backend."""

import torch
from torch import Tensor

from engine.config import ModelConfig
from engine.kernels.backend import Service
from engine.kernels.draws import Draws, Tokens
from engine.kernels.reference import elementwise, quantization, sampling, transforms
from engine.kernels.reference.attention import PagedAttention, store_kv
from engine.kernels.reference.linear import linear, pack_weight


class ReferenceBackend:
    """Plain torch, on any device and for any model; see `engine.kernels.backend.Backend`."""

    name = "reference"
    title = "PyTorch's kernels"
    device_types: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self.paged_attention = PagedAttention()

    def obstacle(self, model: ModelConfig, block_size: int, dtype: torch.dtype) -> str | None:
        """There is none."""
        return None

    def service(self, device: torch.device, dtype: torch.dtype) -> Service:
        """Quantized weights on CPUs only: its products of them are exact, but slow on a GPU."""
        if device.type == "cpu":
            return Service(("none", "int8", "int4"), (dtype,))
        return Service(("none",), (dtype,))

    def block_bytes(self, model: ModelConfig, block_size: int, cache_dtype: torch.dtype) -> int:
        """Keys and values without anything between them."""
        return block_size * model.kv_bytes_per_token(cache_dtype.itemsize)

    rms_norm = staticmethod(elementwise.rms_norm)
    add_rms_norm_ = staticmethod(elementwise.add_rms_norm_)
    apply_rope = staticmethod(elementwise.apply_rope)
    silu_and_mul = staticmethod(elementwise.silu_and_mul)
    store_kv = staticmethod(store_kv)
    linear = staticmethod(linear)
    pack_weight = staticmethod(pack_weight)
    quantize_channels = staticmethod(quantization.quantize_channels)
    quantize_rows = staticmethod(quantization.quantize_rows)
    int8_linear = staticmethod(quantization.int8_linear)
    quantize_groups = staticmethod(quantization.quantize_groups)
    quantize_row_groups = staticmethod(quantization.quantize_row_groups)
    grouped_linear = staticmethod(quantization.grouped_linear)
    hadamard = staticmethod(transforms.hadamard)

    def rotate_rows(self, x: Tensor, by: Tensor, matrix: Tensor) -> Tensor:
        """See `Backend`."""
        return transforms.rotate_rows(x, by, matrix)

    def draw(self, logits: Tensor, draws: Draws) -> Tokens:
        """See `Backend`."""
        return sampling.draw(logits, draws)
