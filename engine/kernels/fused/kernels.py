"""The one set of fused passes that a step on a device is made of."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from engine.kernels.fused.tasks import AttentionTasks
from engine.kernels.fused.tensors import Activations, LayerCache, StepTensors
from engine.kernels.fused.weights import DeviceWeight
from engine.kernels.rope import RotaryTable


@dataclass(frozen=True, slots=True)
class HeadNorms:
    """Weights [head_dim] of the norms of query and key heads (Qwen3)."""

    query: Tensor
    key: Tensor
    eps: float


class FusedKernels(Protocol):
    """Passes over a step's T tokens, T a bucket that may hold padding at its end.

    Everything is written to tensors that the caller made, so that a step allocates nothing and can
    be recorded as a graph. Where the shapes of two calls are equal, so are their launches: what
    differs from step to step is read from tensors.

    Sources: RMSNorm (Zhang and Sennrich 2019), rotary embedding (Su et al. 2021), SwiGLU (Shazeer
    2020), paged attention (Kwon et al. 2023), GQA (Ainslie et al. 2023).
    """

    # -- between the products ----------------------------------------------------------------------

    def embed(
        self, token_ids: Tensor, last_tokens: Tensor, table: Tensor, residual: Tensor
    ) -> None:
        """Look the tokens up.

        Args:
            token_ids: int32 [T]; see `StepTensors.token_ids`.
            last_tokens: int32 [max_num_seqs]; the token that each slot sampled last.
            table: [vocab, hidden].
            residual: float32 [T, hidden]; written.
        """
        ...

    def add_norm(
        self, update: Tensor | None, residual: Tensor, weight: Tensor, eps: float, out: Activations
    ) -> None:
        """residual += update; out = x / sqrt(mean(x²) + eps) · weight of the sum, rounded.

        Args:
            update: [T, hidden], of the model's dtype; ``None`` adds nothing.
            residual: float32 [T, hidden]; written.
            weight: [hidden].
            eps: added to the mean of squares.
            out: [T, hidden]; its dtype says whether the result is rounded to 8 bits, each row with
                its own scale max|x| / 127 (int8, to nearest, ties to even) or max|x| / 448 (fp8).
                A row of zeros has scale 0.
        """
        ...

    def rotate_and_store(
        self,
        qkv: Tensor,
        norms: HeadNorms | None,
        rotary: RotaryTable,
        step: StepTensors,
        cache: LayerCache,
        queries: Tensor,
    ) -> None:
        """Norm the heads, rotate queries and keys, write keys and values to the cache.

        What is not finite is written to the cache as 0.

        Args:
            qkv: [T, (heads + 2 kv_heads) · head_dim], queries, keys, values.
            norms: ``None`` norms nothing.
            rotary: half-split, as in `engine.kernels.rope`.
            step: its positions and cache slots are read.
            cache: written at the tokens' cache slots; where it holds 8 bits, each token and head
                is rounded to its own scale, as in `add_norm`.
            queries: [T, heads, head_dim]; written.
        """
        ...

    def gate(self, gate_up: Tensor, out: Activations, hadamard_count: int = 1) -> None:
        """silu(first half) · second half of [T, 2 · inner], rounded as in `add_norm`.

        Args:
            gate_up: [T, 2 · inner].
            out: [T, inner].
            hadamard_count: numbers that `engine.kernels.hadamard.hadamard` combines, without its
                division, before they are rounded; 1 is none. ``16 · count`` divides the inner
                width.
        """
        ...

    def round_rows(self, x: Tensor, out: Activations) -> None:
        """x [T, width] rounded as in `add_norm`."""
        ...

    # -- products ----------------------------------------------------------------------------------

    def pack(self, weight: DeviceWeight) -> DeviceWeight:
        """The weight in the layout that `product` multiplies fastest; may share memory with it."""
        ...

    def product(
        self, x: Activations, weight: DeviceWeight, bias: Tensor | None, out: Tensor
    ) -> None:
        """out = x weightᵀ + bias.

        Args:
            x: [T, inputs]; rounded as the weight wants: int8 rows for an `Int8Weight`, fp8 rows for
                a `Float8Weight`, else the model's dtype.
            weight: [outputs, inputs], from `pack`.
            bias: [outputs].
            out: [T, outputs], of the model's dtype or float32; written.
        """
        ...

    # -- attention ---------------------------------------------------------------------------------

    def attention(
        self,
        queries: Tensor,
        cache: LayerCache,
        step: StepTensors,
        tasks: AttentionTasks,
        scale: float,
        sliding_window: int | None,
        out: Tensor,
    ) -> None:
        """softmax(scale · q kᵀ) v, causal, each sequence over its own keys.

        Args:
            queries: [T, heads, head_dim].
            cache: holds the step's own keys and values already.
            step: where the sequences and their keys are.
            tasks: how the work is divided among programs.
            scale: usually ``head_dim ** -0.5``.
            sliding_window: keys a query sees, its own included; ``None`` is all before it.
            out: [T, heads · head_dim]; written. Rows of padding are written with 0 or left alone.
        """
        ...


def activations(tokens: int, width: int, dtype: torch.dtype, device: torch.device) -> Activations:
    """Room for activations of a dtype; with scales where it has 8 bits."""
    values = torch.empty(tokens, width, dtype=dtype, device=device)
    if dtype.itemsize > 1:
        return Activations(values)
    return Activations(values, torch.empty(tokens, dtype=torch.float32, device=device))
