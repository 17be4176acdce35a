"""How the kernels of products are launched: tiles, splits, warps, stages, by shape and card.

The numbers for compute capability 9.0 follow measurements on an H200, those for others the same
rules within the card's shared memory.
"""

from dataclasses import dataclass, replace
from typing import Literal

Capability = tuple[int, int]
Kind = Literal["int8", "float8", "int4"]

KERNEL_ROWS = 16  # of the smallest tile
SPLIT_ROWS = 256  # inputs are not split for more rows than this


@dataclass(frozen=True, slots=True)
class Configuration:
    """How a kernel is launched.

    Attributes:
        rows, outputs, inputs: of a tile.
        weight_left: the weight is the left operand.
        splits: ranges of inputs whose sums are added at the end.
        warps, stages: of a program.
        band: tiles of rows whose programs go together.
        descriptors: tiles come by tensor descriptors, and programs stay until all tiles are done.
    """

    rows: int
    outputs: int
    inputs: int
    weight_left: bool = False
    splits: int = 1
    warps: int = 4
    stages: int = 4
    band: int = 8
    descriptors: bool = False


@dataclass(frozen=True, slots=True)
class Card:
    """What configurations need to know of a compute capability.

    Attributes:
        processors: streaming multiprocessors of a usual card.
        shared: bytes of shared memory that a program may have.
    """

    processors: int
    shared: int


_CARDS = {
    (8, 0): Card(108, 163 * 1024),
    (8, 6): Card(84, 99 * 1024),
    (8, 7): Card(16, 163 * 1024),
    (8, 9): Card(128, 99 * 1024),
    (9, 0): Card(132, 227 * 1024),
    (10, 0): Card(148, 227 * 1024),
}


def card(capability: Capability) -> Card:
    """The card of a capability, or of the nearest one before it; 8.0 is the first."""
    known = [found for found in _CARDS if found <= capability]
    if capability[0] == 12:  # consumer cards
        return Card(170, 99 * 1024)
    return _CARDS[max(known, default=(8, 0))]


def bucket(rows: int) -> int:
    """Rows rounded up to a power of two, at least 16: what configurations depend on."""
    return max(KERNEL_ROWS, 1 << (rows - 1).bit_length())


def configuration(
    capability: Capability, kind: Kind, rows: int, outputs: int, inputs: int, out_bytes: int = 2
) -> Configuration:
    """How the product [rows, inputs] · [outputs, inputs]ᵀ is launched.

    Args:
        capability: of the device.
        kind: of the weight.
        rows: a step's; rounded up by `bucket`.
        outputs, inputs: the weight's shape. With int4, a tile's inputs are the weight's unit.
        out_bytes: of one result.
    """
    of = card(capability)
    if kind == "int4":
        return _int4(of, bucket(rows), outputs, inputs)
    return _eight_bits(capability, of, kind, bucket(rows), outputs, inputs, out_bytes)


def _int4(of: Card, rows: int, outputs: int, inputs: int) -> Configuration:
    if rows == 16:
        tile = Configuration(16, 64, 128, stages=5)
        programs = 4 * of.processors
    elif rows < 128:
        tile = Configuration(rows, 128, 128, weight_left=True, warps=4 if rows == 32 else 8)
        programs = 2 * of.processors
    else:
        outputs_of_tile = 128 if of.shared > 128 * 1024 else 64
        tile = Configuration(128, outputs_of_tile, 128, weight_left=True, warps=8, stages=3)
        programs = 2 * of.processors
    tiles = _tiles(tile, rows, outputs)
    splits = _splits(tiles, -(-inputs // 128), programs, least=4)
    stage = 2 * tile.rows * tile.inputs + tile.outputs * tile.inputs // 2
    return _fitted(tile, splits, stage, of)


def _eight_bits(
    capability: Capability,
    of: Card,
    kind: Kind,
    rows: int,
    outputs: int,
    inputs: int,
    out_bytes: int,
) -> Configuration:
    programs = of.processors
    if rows == 16:
        tile = Configuration(16, 64, 256, weight_left=True)
    elif rows == 32:
        tile = Configuration(32, 64, 128, weight_left=True, stages=5)
        programs = 2 * of.processors
    elif rows == 64:
        tile = Configuration(64, 128, 128)
        if _tiles(tile, rows, outputs) < of.processors:
            tile = Configuration(64, 64, 128, stages=5)
            programs = 2 * of.processors
    else:
        # Results are laid out anew in shared memory, while the next tile's inputs arrive. Tiles of
        # 256 outputs with sums in float32 take every register.
        across = 256 if out_bytes == 2 and kind == "int8" else 128
        large = Configuration(128, across, 128, warps=8, descriptors=True)
        fills = _tiles(large, rows, outputs) * 4 >= 3 * of.processors
        if fills and capability >= (9, 0) and of.shared > 200 * 1024:
            return large
        tile = Configuration(128, 128, 128)
    if kind == "float8" and capability < (8, 9):  # bytes are widened in registers
        tile = replace(tile, inputs=64 if tile.rows > 32 else 128, warps=8 if tile.rows > 32 else 4)
    while inputs % tile.inputs and tile.inputs > 64:
        tile = replace(tile, inputs=tile.inputs // 2)
    tiles = _tiles(tile, rows, outputs)
    splits = 1
    if rows <= SPLIT_ROWS and 3 * tiles <= 2 * of.processors:
        splits = _splits(tiles, -(-inputs // tile.inputs), programs, least=8)
    return _fitted(tile, splits, (tile.rows + tile.outputs) * tile.inputs, of)


def _tiles(tile: Configuration, rows: int, outputs: int) -> int:
    return -(-rows // tile.rows) * -(-outputs // tile.outputs)


def _splits(tiles: int, steps: int, programs: int, least: int) -> int:
    """A power of two up to 8: no more than so many programs, each of so many steps at least."""
    splits = 1
    while splits < 8 and 2 * splits * tiles <= programs and steps >= 2 * splits * least:
        splits *= 2
    return splits


def _fitted(tile: Configuration, splits: int, stage: int, of: Card) -> Configuration:
    """With splits, and as many stages as fit into shared memory beside 4 KiB of something else."""
    stages = max(2, min(tile.stages, (of.shared - 4096) // stage))
    return replace(tile, splits=splits, stages=stages)
