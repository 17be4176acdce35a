"""What one step's attention needs to know about the sequences in its flattened batch."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from torch import Tensor


class PrefillSpan(NamedTuple):
    """One sequence with any number of query tokens, in host integers.

    Its queries are rows ``start`` to ``end`` of the flattened batch and sit at the end of its
    ``context`` keys. ``sequence`` is its row in the block tables.
    """

    sequence: int
    start: int
    end: int
    context: int


@dataclass(frozen=True, eq=False)
class AttentionBatch:
    """The S sequences of one step, decodes first, their T query tokens laid end to end.

    Two batches are equal only if they are the same object.

    Attributes:
        query_start: int32 [S + 1]; where each sequence's query tokens begin; the last entry is T.
        context_lens: int32 [S]; keys each sequence sees, this step's tokens included.
        block_tables: int32 [S, max_blocks]; the cache blocks of each sequence, padded with 0.
        slot_mapping: int64 [T]; ``block * block_size + offset`` where each token's key and value
            are written.
        num_decodes: how many sequences, the first ones, have exactly one query token each.
        max_query: most query tokens of any sequence.
        max_context: most keys of any sequence.
        block_size: tokens in a block.
        max_decode_context: most keys of any of the decodes; 0 takes ``max_context``. Stating it
            keeps a long prefill in the same step from widening the decodes' padding.
    """

    query_start: Tensor
    context_lens: Tensor
    block_tables: Tensor
    slot_mapping: Tensor
    num_decodes: int
    max_query: int
    max_context: int
    block_size: int
    max_decode_context: int = 0

    @property
    def num_sequences(self) -> int:
        """S."""
        return self.context_lens.shape[0]

    @property
    def num_tokens(self) -> int:
        """T."""
        return self.slot_mapping.shape[0]

    @cached_property
    def prefills(self) -> tuple[PrefillSpan, ...]:
        """The sequences after the decodes.

        Read from the device once a step rather than once a layer; not read at all in a step of
        decodes alone, so such a step never waits for the device.
        """
        if self.num_sequences == self.num_decodes:
            return ()
        starts = self.query_start[self.num_decodes :].tolist()
        contexts = self.context_lens[self.num_decodes :].tolist()
        return tuple(
            PrefillSpan(self.num_decodes + index, starts[index], starts[index + 1], context)
            for index, context in enumerate(contexts)
        )
