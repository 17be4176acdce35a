"""A step's small index arrays, built on the host from per-slot block tables that stay."""

from itertools import chain

import numpy as np
from numpy.typing import NDArray

from engine.scheduler.step import Step, Work

Ints = NDArray[np.int32]


class BlockTables:
    """The cache blocks of every slot, kept from step to step.

    Args:
        max_num_seqs: slots.
        max_blocks: blocks of the longest sequence.
        block_size: tokens in a block.

    Attributes:
        rows: int32 [slots, blocks]; of each row, what lies beyond a sequence's blocks is old.
    """

    def __init__(self, max_num_seqs: int, max_blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self.rows: Ints = np.zeros((max_num_seqs, max_blocks), dtype=np.int32)

    def update(self, step: Step) -> None:
        """Append the step's new blocks; a sequence that takes a slot begins its row anew."""
        size, decodes = self.block_size, step.decodes
        if len(decodes.grown):
            slots, starts = decodes.slots[decodes.grown], decodes.starts[decodes.grown]
            self.rows[slots, starts // size] = decodes.new_blocks
        for work in step.others:
            if work.new_blocks:
                held = 0 if work.admission is not None else -(-work.start // size)
                self.rows[work.slot, held : held + len(work.new_blocks)] = work.new_blocks


class StepInputs:
    """The arrays of one step, made once and filled anew for every step that uses them.

    Where steps overlap there are several, over the same tables, used in turns.

    Args:
        tables: the block tables; filling brings them up to date.
        max_tokens: most tokens of a step.

    Attributes:
        num_tokens, num_sequences: how much of each array is in use, at most T and S.
        token_ids: int32 [T], the flattened batch. `UNKNOWN_TOKEN` stands for a token that only the
            device knows; see there.
        positions: int32 [T], each token's place in its own sequence.
        owners: int32 [T], each token's sequence.
        query_start: int32 [S + 1]; where each sequence's tokens begin; the last entry is T.
        contexts: int32 [S]; keys each sequence sees, this step's tokens included.
        slots: int32 [S]; each sequence's row of the tables.
        picked: int32 [N]; which sequences' next tokens are wanted, as indices into `slots`.
    """

    def __init__(self, tables: BlockTables, max_tokens: int) -> None:
        slots = len(tables.rows)
        self.tables = tables
        self.num_tokens = self.num_sequences = 0
        self.token_ids: Ints = np.zeros(max_tokens, dtype=np.int32)
        self.positions: Ints = np.zeros(max_tokens, dtype=np.int32)
        self.owners: Ints = np.zeros(max_tokens, dtype=np.int32)
        self.query_start: Ints = np.zeros(slots + 1, dtype=np.int32)
        self.contexts: Ints = np.zeros(slots, dtype=np.int32)
        self.slots: Ints = np.zeros(slots, dtype=np.int32)
        self.picked: Ints = np.zeros(0, dtype=np.int32)
        self._counting = np.arange(max(max_tokens, slots) + 1, dtype=np.int32)

    def another(self) -> "StepInputs":
        """As many arrays again, over the same tables, for a step that overlaps this one."""
        return StepInputs(self.tables, len(self.token_ids))

    @property
    def block_size(self) -> int:
        """Tokens in a block."""
        return self.tables.block_size

    def fill(self, step: Step) -> None:
        """Bring the tables up to date and lay out the step's tokens."""
        self.tables.update(step)
        decodes, others = step.decodes, step.others
        first = len(decodes)
        self.slots[:first] = decodes.slots
        self.positions[:first] = decodes.starts
        self.token_ids[:first] = decodes.token_ids
        self.owners[:first] = self._counting[:first]
        self.query_start[: first + 1] = self._counting[: first + 1]
        np.add(decodes.starts, 1, out=self.contexts[:first], casting="same_kind")
        self.num_sequences = self.num_tokens = first
        self.picked = self._counting[:first]
        if others:
            self._fill_others(others)

    def _fill_others(self, works: tuple[Work, ...]) -> None:
        """Lay out works of any length behind the decodes."""
        first, count = self.num_sequences, self.num_sequences + len(works)
        counts = np.array([len(work.token_ids) for work in works], dtype=np.int32)
        starts = np.array([work.start for work in works], dtype=np.int32)
        np.cumsum(counts, out=self.query_start[first + 1 : count + 1])
        self.query_start[first + 1 : count + 1] += first
        total = int(self.query_start[count])
        self.slots[first:count] = [work.slot for work in works]
        np.add(starts, counts, out=self.contexts[first:count])
        owners = np.repeat(self._counting[: len(works)], counts)
        np.add(owners, first, out=self.owners[first:total])
        shift = starts - self.query_start[first:count]
        np.add(self._counting[first:total], shift[owners], out=self.positions[first:total])
        token_ids = chain.from_iterable(work.token_ids for work in works)
        self.token_ids[first:total] = np.fromiter(token_ids, np.int32, total - first)
        more = [first + index for index, work in enumerate(works) if work.sample]
        self.picked = np.concatenate([self.picked, np.array(more, dtype=np.int32)])
        self.num_sequences, self.num_tokens = count, total

    @property
    def sampled(self) -> list[int]:
        """`picked` as a list."""
        sampled: list[int] = self.picked.tolist()
        return sampled

    @property
    def sampled_slots(self) -> list[int]:
        """The slot of each sequence in `picked`."""
        slots: list[int] = self.slots[self.picked].tolist()
        return slots

    @property
    def sampled_rows(self) -> NDArray[np.int64]:
        """int64; the last token of each sequence in `picked`, whose scores give the next one."""
        return self.query_start[1:][self.picked].astype(np.int64) - 1
