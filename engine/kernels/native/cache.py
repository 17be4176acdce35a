"""The paged KV cache in the order in which the kernels in C multiply it; see cache.h."""

import numpy as np
import torch
from torch import Tensor

from engine.config import ModelConfig
from engine.errors import OutOfCache
from engine.kernels.native.structs import KINDS, Cache

AREA = 16  # tokens that lie together
_LINE = 64  # bytes that the processor reads at once


def area_bytes(head_dim: int, dtype: torch.dtype) -> int:
    """Bytes of one key head's 16 tokens; of int8 with two float32 scales a token."""
    scales = 2 * AREA * 4 if dtype == torch.int8 else 0
    return 2 * AREA * head_dim * dtype.itemsize + scales


def query_bytes(head_dim: int, dtype: torch.dtype) -> int:
    """Bytes of one encoded query; of int8 with a scale and a sum."""
    return head_dim * dtype.itemsize + (8 if dtype == torch.int8 else 0)


class NativeCache:
    """Keys and values of every layer, in blocks that any sequence may own.

    Args:
        model: its layers and heads.
        num_blocks: blocks in each layer.
        block_size: tokens of a block, a multiple of 16.
        dtype: float32, bfloat16 or int8.

    Raises:
        OutOfCache: there are no blocks, or no such memory.
    """

    def __init__(
        self, model: ModelConfig, num_blocks: int, block_size: int, dtype: torch.dtype
    ) -> None:
        if num_blocks < 1:
            raise OutOfCache("A KV cache without blocks is empty.")
        self.dtype = dtype
        self._model = model
        self._areas = block_size // AREA
        self._layer_bytes = self._areas * model.num_kv_heads * area_bytes(model.head_dim, dtype)
        self._memory = _zeros(num_blocks * self.block_bytes)

    @property
    def block_bytes(self) -> int:
        """Bytes of a block, over all layers."""
        return self._model.num_layers * self._layer_bytes

    def fill(self, value: int) -> None:
        """Write every byte, 0 to 255: what was never written costs nothing to read."""
        self._memory.fill_(value)

    def layer(self, index: int) -> Cache:
        """One layer's struct."""
        model = self._model
        return Cache(
            kind=KINDS[self.dtype],
            heads=model.num_heads,
            kv_heads=model.num_kv_heads,
            width=model.head_dim,
            areas=self._areas,
            area_bytes=area_bytes(model.head_dim, self.dtype),
            block_bytes=self.block_bytes,
            query_bytes=query_bytes(model.head_dim, self.dtype),
            memory=self._memory.data_ptr() + index * self._layer_bytes,
        )


def _zeros(nbytes: int) -> Tensor:
    """uint8 zeros that cost memory and time only where they are written, on whole lines.

    `torch.zeros` writes every byte; numpy asks the system for pages that are zero when they are
    first touched.
    """
    try:
        memory = torch.from_numpy(np.zeros(nbytes + _LINE, dtype=np.uint8))
    except MemoryError as error:
        raise OutOfCache(f"No memory for a KV cache of {nbytes:,} bytes.") from error
    start = -memory.data_ptr() % _LINE
    return memory[start : start + nbytes]
