"""A step's small index arrays, built on the host from per-slot block tables that stay."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from engine.kernels.batch import AttentionBatch
from engine.scheduler.step import Step


@dataclass(frozen=True, slots=True)
class StepInputs:
    """What the model is called with.

    Attributes:
        token_ids: int64 [T].
        positions: int64 [T].
        attention: where keys and values are, for every sequence.
        sampled_rows: int64 [N]; the flattened rows whose logits are wanted.
        sampled_slots: the slot of each of them.
    """

    token_ids: torch.Tensor
    positions: torch.Tensor
    attention: AttentionBatch
    sampled_rows: torch.Tensor
    sampled_slots: list[int]


class BlockTables:
    """The blocks of every slot, kept between steps: a step appends its new ones only."""

    def __init__(self, max_num_seqs: int, max_blocks: int, block_size: int) -> None:
        self._table: NDArray[np.int32] = np.zeros((max_num_seqs, max_blocks), dtype=np.int32)
        self._lengths = [0] * max_num_seqs
        self._block_size = block_size

    def prepare(self, step: Step, device: torch.device) -> StepInputs:
        """Bring the tables up to date and lay out the step's tokens."""
        works = step.works
        for work in works:
            self._append(work.slot, work.new_blocks, restart=work.admission is not None)
        size = self._block_size
        slots = np.array([work.slot for work in works], dtype=np.int64)
        starts = np.array([work.start for work in works], dtype=np.int64)
        counts = np.array([len(work.token_ids) for work in works], dtype=np.int64)
        query_start = np.zeros(len(works) + 1, dtype=np.int32)
        np.cumsum(counts, out=query_start[1:])

        owner = np.repeat(np.arange(len(works)), counts)
        positions = np.arange(len(owner)) - query_start[owner] + starts[owner]
        slot_mapping = self._table[slots[owner], positions // size].astype(np.int64) * size
        slot_mapping += positions % size
        contexts = (starts + counts).astype(np.int32)
        longest = int(contexts.max())
        num_decodes = int((counts == 1).sum())
        tokens = np.fromiter(
            (token for work in works for token in work.token_ids), np.int64, len(owner)
        )
        sampled = [i for i, work in enumerate(works) if work.sample]

        def put(values: NDArray[np.generic]) -> torch.Tensor:
            return torch.from_numpy(values).to(device, non_blocking=True)

        return StepInputs(
            token_ids=put(tokens),
            positions=put(positions),
            attention=AttentionBatch(
                query_start=put(query_start),
                context_lens=put(contexts),
                block_tables=put(self._table[slots, : -(-longest // size)]),
                slot_mapping=put(slot_mapping),
                num_decodes=num_decodes,
                max_query=int(counts.max()),
                max_context=longest,
                block_size=size,
                max_decode_context=int(contexts[:num_decodes].max(initial=0)),
            ),
            sampled_rows=put(query_start[1:][sampled].astype(np.int64) - 1),
            sampled_slots=[works[i].slot for i in sampled],
        )

    def _append(self, slot: int, blocks: tuple[int, ...], *, restart: bool) -> None:
        held = 0 if restart else self._lengths[slot]
        if blocks:
            self._table[slot, held : held + len(blocks)] = blocks
        self._lengths[slot] = held + len(blocks)
