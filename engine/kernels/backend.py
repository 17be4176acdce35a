"""The one set of kernels that every backend implements.

A backend is chosen once for an engine (`engine.executors.choose`) and handed to whatever computes.
Its functions are called through the checked ones of this package, such as
`engine.kernels.norm.rms_norm`, which check the arguments; a backend may take them as right.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from engine.config import ModelConfig, Quantization
from engine.kernels.batch import AttentionBatch
from engine.kernels.draws import Draws, Tokens


@dataclass(frozen=True, slots=True)
class Service:
    """What a backend serves on one device, for weights of one dtype.

    Attributes:
        quantizations: of the weights.
        cache_dtypes: of keys and values.
        int8_cache_pays: whether int8 keys and values, where they are served, are to be taken with
            quantized weights.
        preferred: the quantization to take where neither it nor a dtype is asked for.
        reason: why, as "as it is the fastest"; empty where ``preferred`` is ``none``.
    """

    quantizations: tuple[Quantization, ...]
    cache_dtypes: tuple[torch.dtype, ...]
    preferred: Quantization = "none"
    reason: str = ""
    int8_cache_pays: bool = True


class Backend(Protocol):
    """Kernels for some devices.

    T is the tokens of a step. Results are new tensors, but for the functions that end in ``_`` and
    for `store_kv`, which write to their arguments.
    """

    # -- what choosing asks ----------------------------------------------------------------------

    @property
    def name(self) -> str:
        """What an engine reports as its kernels."""

    @property
    def title(self) -> str:
        """What a sentence calls them, as "PyTorch's kernels"."""

    @property
    def device_types(self) -> frozenset[str]:
        """The torch device types that it may run on; empty is any."""

    def obstacle(self, model: ModelConfig, block_size: int, dtype: torch.dtype) -> str | None:
        """Why it cannot run a model, in words that end a sentence; ``None`` where it can."""

    def service(self, device: torch.device, dtype: torch.dtype) -> Service:
        """What it serves on a device, for weights of a dtype."""

    def block_bytes(self, model: ModelConfig, block_size: int, cache_dtype: torch.dtype) -> int:
        """Bytes of one cache block, over all layers."""

    # -- norms, positions, gates -----------------------------------------------------------------

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """See `engine.kernels.norm.rms_norm`."""

    def add_rms_norm_(
        self, update: Tensor | None, residual: Tensor, weight: Tensor, eps: float
    ) -> Tensor:
        """See `engine.kernels.norm.add_rms_norm_`."""

    def apply_rope(self, heads: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        """See `engine.kernels.rope.apply_rope`; the tables are those of its `RotaryRows`."""

    def silu_and_mul(self, gate_up: Tensor) -> Tensor:
        """See `engine.kernels.activation.silu_and_mul`."""

    # -- attention -------------------------------------------------------------------------------

    def store_kv(
        self,
        keys: Tensor,
        values: Tensor,
        key_cache: Tensor,
        value_cache: Tensor,
        slot_mapping: Tensor,
    ) -> None:
        """See `engine.kernels.attention.store_kv`."""

    def paged_attention(
        self,
        queries: Tensor,
        key_cache: Tensor,
        value_cache: Tensor,
        batch: AttentionBatch,
        scale: float,
        sliding_window: int | None,
    ) -> Tensor:
        """See `engine.kernels.attention.paged_attention`."""

    # -- products --------------------------------------------------------------------------------

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """See `engine.kernels.linear.linear`."""

    def pack_weight(self, weight: Tensor) -> Tensor:
        """See `engine.kernels.linear.pack_weight`."""

    def quantize_channels(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """A weight [outputs, inputs] → int8 of its shape and float32 scales [outputs]."""

    def quantize_rows(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Activations [T, inputs] → int8 of their shape and float32 scales [T]."""

    def int8_linear(
        self, values: Tensor, scales: Tensor, weight: Tensor, weight_scales: Tensor
    ) -> Tensor:
        """The product of `quantize_rows` and `quantize_channels`: float32 [T, outputs]."""

    def quantize_groups(
        self, weight: Tensor, group: int, bits: int, symmetric: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A weight → uint8 of its shape, float32 scales and lows [outputs, inputs / group]."""

    def quantize_row_groups(self, x: Tensor, group: int) -> tuple[Tensor, Tensor]:
        """Activations → int8 of their shape and float32 scales [T, inputs / group]."""

    def grouped_linear(
        self,
        values: Tensor,
        scales: Tensor,
        weight: Tensor,
        weight_scales: Tensor,
        weight_lows: Tensor,
    ) -> Tensor:
        """The product of `quantize_row_groups` and `quantize_groups`: float32 [T, outputs]."""

    # -- transforms ------------------------------------------------------------------------------

    def hadamard(self, x: Tensor, count: int, stride: int, scale: float) -> Tensor:
        """The Walsh-Hadamard transform of runs of ``count`` numbers ``stride`` apart, scaled."""

    def rotate_rows(self, x: Tensor, by: Tensor, matrix: Tensor) -> Tensor:
        """See `engine.kernels.hadamard.rotate_rows`."""

    # -- sampling --------------------------------------------------------------------------------

    def draw(self, logits: Tensor, draws: Draws) -> Tokens:
        """See `engine.kernels.sampling.draw`."""
