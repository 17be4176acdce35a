"""Runs of cache blocks that several sequences of a step have in common, found in block tables."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Table = NDArray[np.int32]

COLUMNS = 128
"""Columns of the tables that are compared at once."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """When a shared run of blocks is worth a product of its own.

    A segment saves reading its keys once for each further sequence, and costs a piece of every
    member row in float32, written and read again. On an H200, 64 to 256 sequences with groups of 8
    and 256 shared keys ran 1.05 to 1.30 times as fast, and more beyond (cf. Hydragen, Juravsky et
    al. 2024; cascade inference, Ye et al. 2024).

    Attributes:
        min_keys: fewest keys of a segment.
        min_sequences: fewest sequences that share it.
        max_rows: most rows (tokens times query heads of a KV head) of a sequence that shares. One
            with more fills tiles of its own, to which every key read is worth as much.
    """

    min_keys: int = 256
    min_sequences: int = 8
    max_rows: int = 64


@dataclass(frozen=True, slots=True)
class Level:
    """Segments of one level of the tree of shared blocks; a sequence is in at most one of them.

    Attributes:
        first, end: [segments]; columns of the block tables.
        starts: [segments]; where each segment's sequences begin in ``members``.
        members: sequences, segment after segment.
    """

    first: Ints
    end: Ints
    starts: Ints
    members: Ints

    def counts(self) -> Ints:
        """[segments]; sequences of each."""
        return np.diff(np.append(self.starts, len(self.members)))


def shared_levels(
    tables: Table, slots: Table, whole: Ints, least: int, min_sequences: int
) -> list[Level]:
    """Segments on every level, each behind its sequences' segments of the levels before.

    Equal block numbers in one column of two rows are taken for equal prefixes only to find groups;
    that the blocks are equal is then looked up column by column.

    Args:
        tables: [slots, columns]; block tables.
        slots: [sequences]; each sequence's row of them.
        whole: [sequences]; columns that may be shared.
        least: fewest columns of a segment.
        min_sequences: fewest sequences of a segment.
    """
    levels: list[Level] = []
    active = np.flatnonzero(whole >= least)
    columns = np.zeros(len(active), np.int64)
    groups = np.zeros(len(active), np.int64)
    while len(active) >= min_sequences:
        level = _level(tables, slots, whole, active, columns, groups, least, min_sequences)
        if level is None:
            break
        levels.append(level)
        counts = level.counts()
        columns = np.repeat(level.end, counts)
        groups = np.repeat(np.arange(len(counts)), counts)
        longer = whole[level.members] >= columns + least
        active, columns, groups = level.members[longer], columns[longer], groups[longer]
    return levels


def _level(
    tables: Table,
    slots: Table,
    whole: Ints,
    active: Ints,
    columns: Ints,
    groups: Ints,
    least: int,
    min_sequences: int,
) -> Level | None:
    """The segments of active sequences; those of one group share the columns before theirs."""
    keys = (groups << 32) + tables[slots[active], columns + (least - 1)]
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
    counts = np.diff(np.append(starts, len(keys)))
    worth = counts >= min_sequences
    if not worth.any():
        return None
    order = order[np.repeat(worth, counts)]
    members, first = active[order], columns[order]
    counts = counts[worth]
    starts = np.cumsum(counts) - counts
    first = first[starts]
    limits = np.minimum.reduceat(whole[members], starts)
    end = _common(tables, slots[members], starts, counts, first, limits)
    long = end - first >= least
    if not long.any():
        return None
    members, counts = members[np.repeat(long, counts)], counts[long]
    return Level(first[long], end[long], np.cumsum(counts) - counts, members)


def _common(
    tables: Table, slots: Table, starts: Ints, counts: Ints, first: Ints, limits: Ints
) -> Ints:
    """[groups]; the first column at or behind ``first`` where a group's rows differ, or its limit.

    Neighbours are compared: a group's rows are equal where each is equal to the one before.
    """
    end = limits.copy()
    alive = np.arange(len(starts))
    column, width = int(first.min()), tables.shape[1]
    while len(alive):
        stop = min(column + COLUMNS, width)
        block = tables[slots, column:stop]
        differs = block[1:] != block[:-1]
        differs = np.concatenate((np.zeros((1, stop - column), bool), differs))
        differs[starts] = False
        at = np.where(differs.any(axis=1), differs.argmax(axis=1), stop - column)
        found = np.minimum.reduceat(at, starts) + column
        end[alive] = np.minimum(found, limits[alive])
        going = (found == stop) & (limits[alive] > stop)
        slots = slots[np.repeat(going, counts)]
        alive, counts = alive[going], counts[going]
        starts = np.cumsum(counts) - counts
        column = stop
    return end
