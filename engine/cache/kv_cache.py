"""The tensors of the paged KV cache (PagedAttention, Kwon et al. 2023, section 4)."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.config import ModelConfig
from engine.errors import OutOfCache


@dataclass(frozen=True)
class KVCache:
    """Keys and values of every layer, in blocks that any sequence may own.

    Attributes:
        keys: [num_layers, num_blocks, block_size, num_kv_heads, head_dim].
        values: the same shape and dtype.
    """

    keys: Tensor
    values: Tensor

    @classmethod
    def allocate(
        cls,
        config: ModelConfig,
        num_blocks: int,
        block_size: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> "KVCache":
        """Zeroed memory: an unwritten slot that is read under a mask must still be finite.

        Raises:
            OutOfCache: there are no blocks, or the device has no such memory.
        """
        if num_blocks < 1 or block_size < 1:
            raise OutOfCache(f"A KV cache of {num_blocks} blocks of {block_size} tokens is empty.")
        shape = (config.num_layers, num_blocks, block_size, config.num_kv_heads, config.head_dim)
        try:
            keys, values = (_zeros(shape, device, dtype) for _ in range(2))
        except (torch.OutOfMemoryError, MemoryError) as error:
            size = num_blocks * block_size * config.kv_bytes_per_token(dtype.itemsize)
            raise OutOfCache(f"No memory on {device} for a KV cache of {size:,} bytes.") from error
        return cls(keys, values)

    @property
    def num_blocks(self) -> int:
        """Blocks in each layer."""
        return self.keys.shape[1]

    @property
    def block_size(self) -> int:
        """Tokens in a block."""
        return self.keys.shape[2]

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """The keys and values of one layer: views [num_blocks, block_size, kv_heads, head_dim]."""
        return self.keys[index], self.values[index]


def _zeros(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Zeros that cost memory and time only where they are written, if the device can do so.

    `torch.zeros` writes every byte on a CPU; numpy asks the system for pages that are zero when
    they are first touched.
    """
    if device.type != "cpu":
        return torch.zeros(shape, device=device, dtype=dtype)
    size = math.prod(shape) * dtype.itemsize
    return torch.from_numpy(np.zeros(size, dtype=np.uint8)).view(dtype).view(shape)
