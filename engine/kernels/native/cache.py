"""The paged KV cache, in the order in which the kernels in C multiply it; see cache.h."""

import numpy as np
import torch
from torch import Tensor

from engine.config import ModelConfig
from engine.errors import OutOfCache
from engine.kernels.native.structs import KINDS, Cache

TILE = 16  # tokens of a tile
_LINE = 64  # bytes of a cache line


def tile_bytes(head_dim: int, dtype: torch.dtype) -> int:
    """Bytes of a tile: 16 tokens of one key head; of int8 with two float32 scales a token."""
    scales = 2 * TILE * 4 if dtype == torch.int8 else 0
    return 2 * TILE * head_dim * dtype.itemsize + scales


def block_bytes(model: ModelConfig, block_size: int, dtype: torch.dtype) -> int:
    """Bytes of a block, over all layers."""
    tiles = model.num_layers * (block_size // TILE) * model.num_kv_heads
    return tiles * tile_bytes(model.head_dim, dtype)


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
        self._tiles = block_size // TILE
        self._block_bytes = block_bytes(model, block_size, dtype)
        self._layer_bytes = self._block_bytes // model.num_layers
        self._memory = _zeros(num_blocks * self._block_bytes)

    def fill(self, value: int) -> None:
        """Set every byte to 0 to 255: pages that were never written read too fast to measure."""
        self._memory.fill_(value)

    def layer(self, index: int) -> Cache:
        """One layer's struct."""
        model = self._model
        return Cache(
            kind=KINDS[self.dtype],
            heads=model.num_heads,
            kv_heads=model.num_kv_heads,
            width=model.head_dim,
            tiles=self._tiles,
            tile_bytes=tile_bytes(model.head_dim, self.dtype),
            block_bytes=self._block_bytes,
            query_bytes=query_bytes(model.head_dim, self.dtype),
            memory=self._memory.data_ptr() + index * self._layer_bytes,
        )


def _zeros(nbytes: int) -> Tensor:
    """uint8 zeros, aligned to a cache line, that take memory only where they are touched.

    `torch.zeros` writes every byte. numpy asks the system for pages that are zero, and a page is
    made when it is first touched.
    """
    try:
        memory = torch.from_numpy(np.zeros(nbytes + _LINE, dtype=np.uint8))
    except MemoryError as error:
        raise OutOfCache(f"No memory for a KV cache of {nbytes:,} bytes.") from error
    start = -memory.data_ptr() % _LINE
    return memory[start : start + nbytes]
