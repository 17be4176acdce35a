"""Divides the segments of a step into tiles, and tells every member row where its pieces go."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.kernels.fused.sharing import Ints, Level, Sharing, shared_levels
from engine.kernels.fused.tasks import TILE_FIELDS

Array = NDArray[np.int32]

UNIT = 128
"""Keys that a piece of a segment is a multiple of, its end apart."""
MAX_CUTS = 8
"""Most pieces that the keys of one segment are cut into."""


@dataclass(frozen=True, slots=True)
class Segments:
    """A step's segments, as `TaskArrays` has them.

    Attributes:
        rows: of a tile.
        shared: int32 [S].
        pieces: int32 [S, 2].
        tiles: int32 [tiles, 8].
        members: int32 [members, 2].
    """

    rows: int
    shared: Array
    pieces: Array
    tiles: Array
    members: Array


@dataclass(frozen=True, slots=True)
class _Found:
    """Segments of all levels, one after the other, with their sequences.

    Attributes:
        first, end: [segments]; keys.
        counts: [segments]; sequences.
        levels: [segments]; the level of each.
        sequences: each segment's, segment after segment.
        tokens: [segments]; member rows, in tokens.
    """

    first: Ints
    end: Ints
    counts: Ints
    levels: Ints
    sequences: Ints
    tokens: Ints

    def front(self, count: int) -> "_Found":
        """The first ``count`` segments; with a segment those before it on the tree are kept."""
        return _Found(
            self.first[:count],
            self.end[:count],
            self.counts[:count],
            self.levels[:count],
            self.sequences[: int(self.counts[:count].sum())],
            self.tokens[:count],
        )


def divide_segments(
    query_start: Array,
    contexts: Array,
    slots: Array,
    block_tables: Array,
    block_size: int,
    group: int,
    widths: tuple[int, ...],
    programs: int,
    room: tuple[int, int],
    sharing: Sharing,
) -> Segments:
    """Find the segments of a step and divide them.

    Args:
        query_start, contexts, slots, block_tables: as in `TaskMaker.make`.
        block_size: tokens in a cache block.
        group: query heads of a KV head.
        widths: rows that a tile may have, ascending.
        programs: tiles that fill the device.
        room: most pieces and most tiles; segments that do not fit are left out.
        sharing: when a segment is worth it.
    """
    count = len(contexts)
    new = np.diff(query_start).astype(np.int64)
    none = Segments(
        0,
        np.zeros(count, np.int32),
        np.zeros((count, 2), np.int32),
        np.zeros((0, TILE_FIELDS), np.int32),
        np.zeros((0, 2), np.int32),
    )
    if room[0] == 0:
        return none
    whole = np.where(
        (contexts > 0) & (new > 0) & (new * group <= sharing.max_rows),
        (contexts - new) // block_size,
        0,
    )
    least = max(-(-sharing.min_keys // block_size), 1)
    levels = shared_levels(block_tables, slots, whole, least, sharing.min_sequences)
    if not levels:
        return none
    found = _gather(levels, new, block_size)
    rows = pick_rows(found.tokens * group, (found.end - found.first) * found.tokens, widths)
    found, cuts = _fit(found, rows // group, programs, room)
    if not len(found.first):
        return none
    shared = np.zeros(count, np.int32)
    shared[found.sequences] = np.repeat(found.end, found.counts)  # the deepest is written last
    pieces, members = _members(found, cuts, query_start, new)
    tiles = _tiles(found, cuts, rows // group, slots)
    return Segments(rows, shared, pieces, tiles, members)


def pick_rows(rows: Ints, weights: Ints, widths: tuple[int, ...]) -> int:
    """The smallest width that holds the weighted mean of these rows, or the largest of all."""
    mean = float((rows * weights).sum() / weights.sum())
    return next((width for width in widths if width >= mean), widths[-1])


def _gather(levels: list[Level], new: Ints, block_size: int) -> _Found:
    counts = [level.counts() for level in levels]
    sequences = np.concatenate([level.members for level in levels])
    all_counts = np.concatenate(counts)
    starts = np.cumsum(all_counts) - all_counts
    return _Found(
        np.concatenate([level.first for level in levels]) * block_size,
        np.concatenate([level.end for level in levels]) * block_size,
        all_counts,
        np.repeat(np.arange(len(levels)), [len(x) for x in counts]),
        sequences,
        np.add.reduceat(new[sequences], starts),
    )


def _fit(
    found: _Found, tile_tokens: int, programs: int, room: tuple[int, int]
) -> tuple[_Found, Ints]:
    """The segments that there is room for, and into how many pieces the keys of each are cut."""
    tiles = -(-found.tokens // tile_tokens)
    length = found.end - found.first
    target = max(int((length * tiles).sum()) // programs, UNIT)
    cuts = np.clip(-(-length // target), 1, MAX_CUTS)
    cuts = -(-length // _cut_keys(length, cuts))
    fits = np.cumsum(found.tokens * cuts) <= room[0]
    fits &= np.cumsum(tiles * cuts) <= room[1]
    kept = int(fits.sum())
    return found.front(kept), cuts[:kept]


def _cut_keys(length: Ints, cuts: Ints) -> Ints:
    """Keys of each piece but the last."""
    return -(-length // (cuts * UNIT)) * UNIT


def _members(found: _Found, cuts: Ints, query_start: Array, new: Ints) -> tuple[Array, Array]:
    """`TaskArrays.pieces` and `TaskArrays.members`."""
    sequences = found.sequences
    count = np.zeros(len(new), np.int64)
    before = np.empty(len(sequences), np.int64)
    cuts_of = np.repeat(cuts, found.counts)
    level_of = np.repeat(found.levels, found.counts)
    for level in range(int(found.levels[-1]) + 1):
        chosen = level_of == level
        before[chosen] = count[sequences[chosen]]
        count[sequences[chosen]] += cuts_of[chosen]
    start = np.cumsum(count * new) - count * new
    times = new[sequences]
    within = np.arange(int(times.sum())) - np.repeat(np.cumsum(times) - times, times)
    token = np.repeat(query_start[:-1][sequences], times) + within
    piece = np.repeat(start[sequences] + before, times) + within * np.repeat(
        count[sequences], times
    )
    pieces = np.stack((start, count), axis=1).astype(np.int32)
    return pieces, np.stack((token, piece), axis=1).astype(np.int32)


def _tiles(found: _Found, cuts: Ints, tile_tokens: int, slots: Array) -> Array:
    """`TaskArrays.segment_tiles`: the tiles of one piece of keys are neighbours."""
    across = -(-found.tokens // tile_tokens)
    numbers = across * cuts
    which = np.repeat(np.arange(len(numbers)), numbers)
    within = np.arange(len(which)) - np.repeat(np.cumsum(numbers) - numbers, numbers)
    cut, tile = within // across[which], within % across[which]
    length = _cut_keys(found.end - found.first, cuts)
    first = found.first[which] + cut * length[which]
    tiles = np.zeros((len(which), TILE_FIELDS), np.int32)
    leaders = found.sequences[np.cumsum(found.counts) - found.counts]
    tiles[:, 0] = slots[leaders][which]
    tiles[:, 1] = first
    tiles[:, 2] = np.minimum(first + length[which], found.end[which])
    tiles[:, 3] = (np.cumsum(found.tokens) - found.tokens)[which] + tile * tile_tokens
    tiles[:, 4] = np.minimum(found.tokens[which] - tile * tile_tokens, tile_tokens)
    tiles[:, 5] = cut
    return tiles
