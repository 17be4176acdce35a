"""The paged cache of a device: keys and values of all layers, with scales for 8 bits."""

import torch
from torch import Tensor

from engine.config import ModelConfig
from engine.errors import OutOfCache
from engine.kernels.fused.tensors import LayerCache


def make_cache(
    config: ModelConfig, num_blocks: int, block_size: int, dtype: torch.dtype, device: torch.device
) -> list[LayerCache]:
    """The cache of every layer, zeroed: what is read under a mask must be finite.

    Raises:
        OutOfCache: the device has no such memory.
    """
    heads = num_blocks, block_size, config.num_kv_heads
    eight_bits = dtype.itemsize == 1

    def room(layers: int, *shape: int, kind: torch.dtype) -> Tensor:
        return torch.zeros(layers, *shape, dtype=kind, device=device)

    try:
        keys, values = (
            room(config.num_layers, *heads, config.head_dim, kind=dtype) for _ in range(2)
        )
        scales = [
            room(config.num_layers, *heads, kind=torch.float32) if eight_bits else None
            for _ in range(2)
        ]
    except (torch.OutOfMemoryError, MemoryError) as error:
        size = num_blocks * block_bytes(config, block_size, dtype)
        raise OutOfCache(f"No memory on {device} for a KV cache of {size:,} bytes.") from error
    key_scales, value_scales = scales
    return [
        LayerCache(
            keys[index],
            values[index],
            None if key_scales is None else key_scales[index],
            None if value_scales is None else value_scales[index],
        )
        for index in range(config.num_layers)
    ]


def block_bytes(config: ModelConfig, block_size: int, dtype: torch.dtype) -> int:
    """Bytes of one block over all layers, its scales included."""
    plain = block_size * config.kv_bytes_per_token(dtype.itemsize)
    if dtype.itemsize > 1:
        return plain
    return plain + 2 * config.num_layers * block_size * config.num_kv_heads * 4
