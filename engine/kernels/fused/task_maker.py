"""Divides a step's attention on the host: numbers for the grids, and arrays for the programs."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.kernels.fused.segment_tiles import Segments, divide_segments, pick_rows
from engine.kernels.fused.sharing import Ints, Sharing
from engine.kernels.fused.tasks import TILE_FIELDS, AttentionTasks

Array = NDArray[np.int32]

SPLIT_KEYS = 128
"""A split is a multiple of this many keys, so that tiles of every size begin where it begins."""
MAX_SPLITS = 32
ALIGNED = 32
PROGRAMS = 4
"""Programs a multiprocessor that splits aim at. An H200 was as fast at 16 sequences of 16,384 keys
and 8 KV heads with 8 splits as with 64, and at 64 sequences with 2 as with 16."""


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """What the division of work depends on, the same for all steps.

    Attributes:
        heads, kv_heads: query heads and KV heads.
        block_size: tokens in a cache block.
        multiprocessors: of the device.
        prefill_rows, segment_rows: rows that a tile of the kernels may have, ascending, none fewer
            than the query heads of a KV head.
        max_sequences: most sequences of a step, padding included.
        max_tokens: most tokens of a step, padding included.
        window: the widest sliding window of a layer.
        shares: whether a layer without a window is there that may share segments.
    """

    heads: int
    kv_heads: int
    block_size: int
    multiprocessors: int
    prefill_rows: tuple[int, ...]
    segment_rows: tuple[int, ...]
    max_sequences: int
    max_tokens: int
    window: int | None = None
    shares: bool = True

    @property
    def group(self) -> int:
        """Query heads of a KV head."""
        return self.heads // self.kv_heads


class TaskMaker:
    """Makes `AttentionTasks`, with arrays of fixed capacity that the caller copies to the device.

    Attributes:
        sizes: numbers (int32) of each array, by its name in `TaskArrays`; multiples of 32, so that
            arrays laid end to end begin at multiples of 128 bytes.
        shapes: the shape of each array, which its front has.
        max_pieces: pieces that the kernels need room for, each [heads, head_dim].
    """

    def __init__(
        self,
        shape: AttentionShape,
        sharing: Sharing | None = None,
        shared_pieces: int | None = None,
    ) -> None:
        """
        Args:
            shape: of the model, the device and its kernels.
            sharing: when segments are worth it.
            shared_pieces: most pieces over segments in a step; segments beyond are left out.
                ``None`` is 4 for each sequence.
        """
        self.shape = shape
        self._sharing = sharing or Sharing()
        pieces = 4 * shape.max_sequences if shared_pieces is None else shared_pieces
        self._pieces = pieces if shape.shares else 0
        self._segment_tiles = -(-self._pieces // 4)
        sequences = shape.max_sequences
        tokens = shape.prefill_rows[0] // shape.group
        self.shapes: dict[str, tuple[int, ...]] = {
            "split_keys": (sequences,),
            "window_split_keys": (0 if shape.window is None else sequences,),
            "shared": (sequences,),
            "pieces": (sequences, 2),
            "prefill_tiles": (shape.max_tokens // tokens + sequences, 2),
            "segment_tiles": (self._segment_tiles, TILE_FIELDS),
            "members": (self._pieces, 2),
        }
        self.sizes = {
            name: -(-int(np.prod(size)) // ALIGNED) * ALIGNED for name, size in self.shapes.items()
        }
        divided = {count: self.splits(count) for count in range(1, sequences + 1)}
        own = (count * splits for count, splits in divided.items() if splits > 1)
        self.max_pieces = self._pieces + max(own, default=0)
        self._kept: tuple[Hashable, Segments] | None = None

    def splits(self, num_decodes: int) -> int:
        """Programs for each decode and KV head: a power of two, 1 where heads fill the device."""
        wanted = PROGRAMS * self.shape.multiprocessors
        programs = max(num_decodes, 1) * self.shape.kv_heads
        if programs >= wanted:
            return 1
        return int(min(1 << (-(-wanted // programs) - 1).bit_length(), MAX_SPLITS))

    def make(
        self,
        arrays: Mapping[str, Array],
        query_start: Array,
        contexts: Array,
        slots: Array,
        block_tables: Array,
        num_decodes: int,
        version: Hashable | None = None,
    ) -> AttentionTasks:
        """Divide a step; fill the arrays (flat, as long as `sizes` says) and return the numbers.

        Args:
            arrays: written, by name.
            query_start, contexts, slots: [S + 1], [S], [S]; as in `StepTensors`.
            block_tables: [max_num_seqs, max_blocks]; the host's copy.
            num_decodes: sequences at the front with one token each, padding included.
            version: equal versions promise equal sequences in equal order, with as many tokens
                each, and nothing changed in the blocks of their tables that were full before; so
                what was found about shared blocks is used again. ``None`` looks anew.
        """
        views = {
            name: arrays[name][: int(np.prod(size))].reshape(size)
            for name, size in self.shapes.items()
        }
        count = len(contexts)
        segments = self._segments(query_start, contexts, slots, block_tables, num_decodes, version)
        views["shared"][:count] = segments.shared
        views["pieces"][:count] = segments.pieces
        views["members"][: len(segments.members)] = segments.members
        tiles = self._rounded(len(segments.tiles), count == num_decodes)
        views["segment_tiles"][: len(segments.tiles)] = segments.tiles
        views["segment_tiles"][len(segments.tiles) : tiles] = 0
        own = contexts[:num_decodes] - segments.shared[:num_decodes]
        splits = self.splits(num_decodes)
        if own.max(initial=0) <= 2 * SPLIT_KEYS:
            splits = 1
        views["split_keys"][:num_decodes] = split_keys(own, splits)
        if self.shape.window is not None:
            seen = window_keys(contexts[:num_decodes], self.shape.window)
            views["window_split_keys"][:num_decodes] = split_keys(seen, splits)
        rows, listed = self._prefill(query_start, contexts, segments.shared, num_decodes)
        views["prefill_tiles"][: len(listed)] = listed
        return AttentionTasks(
            num_decodes=num_decodes,
            num_prefills=count - num_decodes,
            max_decode_context=int(contexts[:num_decodes].max(initial=0)),
            splits=splits,
            prefill_rows=rows,
            prefill_tiles=len(listed),
            segment_rows=segments.rows if tiles else 0,
            segment_tiles=tiles,
            own_pieces=self._pieces,
            window=self.shape.window,
        )

    def _segments(
        self,
        query_start: Array,
        contexts: Array,
        slots: Array,
        block_tables: Array,
        num_decodes: int,
        version: Hashable | None,
    ) -> Segments:
        """The step's segments, those of an earlier step where its version is the same."""
        key = None if version is None else (version, len(contexts), num_decodes)
        if self._kept is not None and key is not None and self._kept[0] == key:
            return self._kept[1]
        segments = divide_segments(
            query_start,
            contexts,
            slots,
            block_tables,
            self.shape.block_size,
            self.shape.group,
            self.shape.segment_rows,
            -(-2 * self.shape.multiprocessors // self.shape.kv_heads),
            (self._pieces, self._segment_tiles),
            self._sharing,
        )
        self._kept = None if key is None else (key, segments)
        return segments

    def _rounded(self, tiles: int, only_decodes: bool) -> int:
        """Tiles that a step launches: where a graph may be replayed, one of a few numbers."""
        if not tiles or not only_decodes:
            return tiles
        rounded = 16
        while rounded < tiles:
            rounded *= 4
        return min(rounded, self._segment_tiles)

    def _prefill(
        self, query_start: Array, contexts: Array, shared: Array, num_decodes: int
    ) -> tuple[int, Array]:
        """Rows of a tile, and the tiles, those with the most keys first."""
        if num_decodes == len(contexts):
            return 0, np.zeros((0, 2), np.int32)
        new = np.diff(query_start)[num_decodes:].astype(np.int64)
        ends = contexts[num_decodes:].astype(np.int64)
        new = np.where(ends > 0, new, 0)
        if not new.any():
            return 0, np.zeros((0, 2), np.int32)
        rows = pick_rows(new * self.shape.group, new, self.shape.prefill_rows)
        tokens = rows // self.shape.group
        tiles = -(-new // tokens)
        sequence = np.repeat(np.arange(len(new)), tiles)
        first = (np.arange(len(sequence)) - np.repeat(np.cumsum(tiles) - tiles, tiles)) * tokens
        last = np.minimum(first + tokens, new[sequence]) + (ends - new)[sequence]
        keys = last - shared[num_decodes:][sequence]
        order = np.argsort(-keys, kind="stable")
        listed = np.stack((sequence + num_decodes, first), axis=1)[order]
        return rows, listed.astype(np.int32)


def split_keys(own: Array | Ints, splits: int) -> Array:
    """Keys of one split of each sequence's own keys, a multiple of `SPLIT_KEYS`."""
    unit = splits * SPLIT_KEYS
    keys: Array = np.maximum(-(-own // unit) * SPLIT_KEYS, SPLIT_KEYS).astype(np.int32)
    return keys


def window_keys(contexts: Array, window: int) -> Array:
    """Keys that a decode reads under a window: from the tile that holds the first one it sees."""
    seen: Array = contexts - np.maximum(contexts - window, 0) // SPLIT_KEYS * SPLIT_KEYS
    return seen
