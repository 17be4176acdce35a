"""What the fused passes read and write: tensors at addresses that stay from step to step."""

from dataclasses import dataclass

import torch
from torch import Tensor

EIGHT_BITS = (torch.int8, torch.float8_e4m3fn)
"""What activations, weights and cached keys may be rounded to."""


@dataclass(frozen=True, slots=True)
class Activations:
    """A step's activations as a product takes them: x, or x = scales · values.

    Attributes:
        values: [T, width]; of the model's dtype, int8 or float8_e4m3fn.
        scales: float32 [T], one a row; ``None`` where the values have the model's dtype.
    """

    values: Tensor
    scales: Tensor | None = None

    def rows(self, count: int) -> "Activations":
        """The first ``count`` rows."""
        scales = None if self.scales is None else self.scales[:count]
        return Activations(self.values[:count], scales)


@dataclass(frozen=True, slots=True)
class LayerCache:
    """One layer's keys and values: k, or k = scale · value.

    Attributes:
        keys, values: [blocks, block_size, kv_heads, head_dim], contiguous; of the model's dtype,
            int8 or float8_e4m3fn.
        key_scales, value_scales: float32 [blocks, block_size, kv_heads], one for each token and
            head; ``None`` where keys and values have the model's dtype.
    """

    keys: Tensor
    values: Tensor
    key_scales: Tensor | None = None
    value_scales: Tensor | None = None


@dataclass(frozen=True, slots=True)
class StepTensors:
    """A step's index arrays on the device, all int32.

    T tokens of S sequences, laid end to end; sequences with one token come first. T and S may be
    rounded up to a bucket: the tokens and sequences beyond those in use are padding.

    Attributes:
        token_ids: [T]. Below 0, the token that was sampled last for slot ``-1 - id``.
        positions: [T], each token's place in its own sequence; 0 for padding.
        cache_slots: [T]; ``block * block_size + offset`` where each token's key and value go. -1
            for padding: nothing is written.
        query_start: [S + 1]; where each sequence's tokens begin. Padded sequences are empty, or
            have one padded token each.
        contexts: [S]; keys each sequence sees, this step's tokens included; 0 for padding.
        slots: [S]; each sequence's row of the block tables; 0 for padding.
        block_tables: [max_num_seqs, max_blocks]; the cache blocks of every slot.
    """

    token_ids: Tensor
    positions: Tensor
    cache_slots: Tensor
    query_start: Tensor
    contexts: Tensor
    slots: Tensor
    block_tables: Tensor
