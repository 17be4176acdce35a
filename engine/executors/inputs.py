"""A step's small index arrays, built on the host from per-slot block tables that stay."""

import numpy as np
from numpy.typing import NDArray

from engine.scheduler.step import Step

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
        self._lengths = [0] * max_num_seqs

    def update(self, step: Step) -> None:
        """Append the step's new blocks; a sequence that takes a slot begins its row anew."""
        for work in step.works:
            if work.new_blocks or work.admission is not None:
                held = 0 if work.admission is not None else self._lengths[work.slot]
                self.append(work.slot, held, work.new_blocks)

    def append(self, slot: int, held: int, blocks: tuple[int, ...]) -> None:
        """Write blocks behind the ``held`` first ones of a slot."""
        self._lengths[slot] = end = held + len(blocks)
        self.rows[slot, held:end] = blocks


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
        sampled: which sequences' next tokens are wanted, as indices into `slots`.
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
        self.sampled: list[int] = []

    def another(self) -> "StepInputs":
        """As many arrays again, over the same tables, for a step that overlaps this one."""
        return StepInputs(self.tables, len(self.token_ids))

    @property
    def block_size(self) -> int:
        """Tokens in a block."""
        return self.tables.block_size

    def fill(self, step: Step) -> None:
        """Bring the tables up to date and lay out the step's tokens."""
        works = step.works
        self.tables.update(step)
        count = len(works)
        counts = np.array([len(work.token_ids) for work in works], dtype=np.int32)
        starts = np.array([work.start for work in works], dtype=np.int32)
        np.cumsum(counts, out=self.query_start[1 : count + 1])
        total = int(self.query_start[count])
        self.num_sequences, self.num_tokens = count, total
        self.slots[:count] = [work.slot for work in works]
        np.add(starts, counts, out=self.contexts[:count])
        self.owners[:total] = owners = np.repeat(np.arange(count, dtype=np.int32), counts)
        shift = starts - self.query_start[:count]
        np.add(np.arange(total, dtype=np.int32), shift[owners], out=self.positions[:total])
        self.token_ids[:total] = [token for work in works for token in work.token_ids]
        self.sampled = [index for index, work in enumerate(works) if work.sample]

    @property
    def sampled_slots(self) -> list[int]:
        """The slot of each sequence in `sampled`."""
        slots: list[int] = self.slots[self.sampled].tolist()
        return slots

    @property
    def sampled_rows(self) -> NDArray[np.int64]:
        """int64; the last token of each sequence in `sampled`, whose scores give the next one."""
        return self.query_start[1:][self.sampled].astype(np.int64) - 1
