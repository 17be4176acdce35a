"""How the reference attention walks a step: index arrays and masks that every layer shares."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.kernels.batch import AttentionBatch, PrefillSpan


@dataclass(frozen=True)
class DecodeGroup:
    """Decodes that are computed together, their contexts padded to whole blocks of the longest.

    Attributes:
        rows: int64 [g]; their rows in the flattened batch.
        blocks: int32 [g * n]; n cache blocks for each.
        mask: [g, 1, 1, n * block_size]; added to the scores: 0 for the keys each one sees, else
            minus infinity.
    """

    rows: Tensor
    blocks: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Prefill:
    """One sequence with any number of query tokens.

    Attributes:
        rows: its query tokens in the flattened batch.
        blocks: int32 [n]; the cache blocks it reads.
        num_keys: keys it reads, from the start of the first block.
        mask: [queries, num_keys], as above; ``None`` where queries and keys are the same tokens
            and the mask is plainly causal.
    """

    rows: slice
    blocks: Tensor
    num_keys: int
    mask: Tensor | None


@dataclass(frozen=True)
class AttentionWalk:
    """The groups in which all of a step's sequences are computed."""

    decodes: tuple[DecodeGroup, ...]
    prefills: tuple[Prefill, ...]


def make_walk(
    batch: AttentionBatch, window: int | None, group_tokens: int, dtype: torch.dtype
) -> AttentionWalk:
    """Make the walk over a step.

    Args:
        batch: the step.
        window: keys a query sees, its own included; ``None`` is all.
        group_tokens: most padded keys that a group of decodes gathers, unless one alone has more.
        dtype: of the masks; the queries'.
    """
    return AttentionWalk(
        tuple(_decode_groups(batch, window, group_tokens, dtype)),
        tuple(_prefill(batch, span, window, dtype) for span in batch.prefills),
    )


def _decode_groups(
    batch: AttentionBatch, window: int | None, group_tokens: int, dtype: torch.dtype
) -> list[DecodeGroup]:
    contexts = batch.context_lens[: batch.num_decodes]
    if contexts.device.type == "cpu":
        # Neighbours of like length waste little padding on one another. Elsewhere the lengths
        # are not read: that would wait for the device.
        ordered, order = contexts.sort(descending=True)
        longest = ordered.tolist()
    else:
        order = torch.arange(batch.num_decodes, device=contexts.device)
        longest = [batch.max_decode_context or batch.max_context] * batch.num_decodes
    groups = []
    start = 0
    while start < batch.num_decodes:
        num_blocks = -(-longest[start] // batch.block_size)
        padded = num_blocks * batch.block_size
        end = start + max(1, group_tokens // padded)
        rows = order[start:end]
        lengths = contexts[rows, None]
        keys = torch.arange(padded, device=contexts.device)
        seen = keys < lengths
        if window is not None:
            seen &= keys >= lengths - window
        blocks = batch.block_tables[rows, :num_blocks].flatten()
        groups.append(DecodeGroup(rows, blocks, _additive(seen, dtype)[:, None, None]))
        start = end
    return groups


def _prefill(
    batch: AttentionBatch, span: PrefillSpan, window: int | None, dtype: torch.dtype
) -> Prefill:
    num_queries = span.end - span.start
    before = span.context - num_queries
    # Blocks that lie before the first query's window are not read.
    first_block = 0 if window is None else max(0, before + 1 - window) // batch.block_size
    skipped = first_block * batch.block_size
    last_block = -(-span.context // batch.block_size)
    mask = None
    if before or (window is not None and window < span.context):
        device = batch.context_lens.device
        distance = torch.arange(before, span.context, device=device)[:, None] - torch.arange(
            skipped, span.context, device=device
        )
        seen = distance >= 0
        if window is not None:
            seen &= distance < window
        mask = _additive(seen, dtype)
    return Prefill(
        rows=slice(span.start, span.end),
        blocks=batch.block_tables[span.sequence, first_block:last_block],
        num_keys=span.context - skipped,
        mask=mask,
    )


def _additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, -math.inf)
