"""Tiles of the kernels of attention, by device and shape."""

from dataclasses import dataclass, replace
from typing import Literal

Phase = Literal["decode", "prefill", "segment"]
Capability = tuple[int, int]

FEWEST_ROWS = 16
"""Rows of the smallest product on tensor cores."""


@dataclass(frozen=True, slots=True)
class TileConfig:
    """How one kernel is compiled.

    Attributes:
        rows: query rows of a tile.
        keys: keys of a tile.
        warps: of a program.
        stages: of the pipeline that loads keys and values.
    """

    rows: int
    keys: int
    warps: int
    stages: int


@dataclass(frozen=True, slots=True)
class TileShape:
    """What tiles are chosen by.

    Attributes:
        group: query heads of a KV head.
        head_dim: numbers of a head.
        block_size: tokens in a cache block.
        item: bytes of the model's dtype.
        cache_format: "none" where the cache has the model's dtype, "int8" or "fp8".
        folds: whether a prefill folds in pieces over segments, which takes registers.
    """

    group: int
    head_dim: int
    block_size: int
    item: int
    cache_format: str = "none"
    folds: bool = False


def shared_memory(capability: Capability) -> int:
    """Bytes of shared memory that a program may have (CUDA C++ programming guide, table of
    technical specifications per compute capability)."""
    match capability:
        case (8, 0) | (8, 7):
            return 163 * 1024
        case (9 | 10, _):
            return 227 * 1024
        case _:
            return 99 * 1024


def row_choices(
    capability: Capability, group: int, head_dim: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Rows that tiles of prefills and of segments may have, ascending, at least ``group``."""
    least = max(power_of_two(group), FEWEST_ROWS)
    most = (128 if capability[0] >= 9 else 64) // (2 if head_dim > 128 else 1)
    most = max(most, least)
    prefill = tuple(sorted({max(32, least), most}))
    segment = tuple(rows for rows in (32, 64, 128) if least <= rows <= most) or (most,)
    return prefill, segment


def power_of_two(x: int) -> int:
    """The smallest power of two that is at least x."""
    return 1 << (x - 1).bit_length()


def tile_config(capability: Capability, phase: Phase, rows: int, shape: TileShape) -> TileConfig:
    """The tile of a kernel: the one measured for its shape, made smaller until it fits the device.

    Measured on an H200 with heads of 128 in groups of 4. Decode, 256 sequences of 1,024 keys: 92 to
    96% of the read bandwidth with 32 keys in 2 warps, or with 128 in 4 warps where a block holds
    them; an int8 cache wants 128 keys, fp8 64. Prefill: 128 x 128 in 8 warps; in 4 warps it spills.
    """
    config = _preferred(phase, max(rows, FEWEST_ROWS), shape)
    if shape.item > 2:  # three products of tf32 for one of float32
        config = TileConfig(config.rows, *((16, 8) if config.rows > 32 else (32, 4)), 2)
    elif capability[0] < 9 and phase != "decode":  # products take more registers before Hopper
        config = TileConfig(config.rows, 64, 8 if config.rows >= 64 else config.warps, 2)
    while _bytes(config, shape) > shared_memory(capability) and config.keys > FEWEST_ROWS:
        if config.stages > 2:
            config = replace(config, stages=config.stages - 1)
        else:
            config = replace(config, keys=config.keys // 2)
    return config


def _preferred(phase: Phase, rows: int, shape: TileShape) -> TileConfig:
    wide = shape.head_dim > 128
    if phase == "decode" and rows == FEWEST_ROWS:
        if shape.cache_format == "int8":
            return TileConfig(rows, 64 if wide else 128, 4, 2)
        if shape.cache_format == "fp8":
            return TileConfig(rows, 64, 4, 2)
        if shape.block_size >= 128 and not wide:
            return TileConfig(rows, 128, 4, 2)
        return TileConfig(rows, 32, 4 if wide else 2, 2)
    narrow = shape.cache_format != "none"
    if phase == "prefill" and rows == 128 and not (narrow or shape.folds):
        return TileConfig(rows, 128, 8, 2)
    crowded = narrow and rows >= 64 and (wide or shape.head_dim & (shape.head_dim - 1))
    keys = 32 if crowded else 64  # more keys take more registers than there are
    warps = 8 if rows * (1 + narrow) > 64 or wide else 4
    return TileConfig(rows, keys, warps, 2 if wide else 3)


def _bytes(config: TileConfig, shape: TileShape) -> int:
    """Shared memory of queries, of the tiles of keys and values in flight, and of what 8-bit ones
    are widened to."""
    dim = power_of_two(shape.head_dim)
    keys = 2 * config.keys * dim
    if shape.cache_format == "none":
        return (config.rows * dim + config.stages * keys) * shape.item
    return (config.rows * dim + keys) * shape.item + config.stages * keys
