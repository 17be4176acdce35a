"""The order of a plan: prefix order, exact duplicates together, cut into chunks.

Sorting the prompts' token ids lexicographically walks their prefix tree depth first, so requests
that share a prefix run next to each other and the engine's prefix cache meets each prefix while it
is hot. Pure functions over one window of the input.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from worker.plan.rows import Group, PlannedLine


@dataclass(frozen=True, slots=True)
class ChunkLimits:
    """How large a chunk may grow: tokens and requests to compute.

    The tokens are those of prompts and answers, and what else of a request takes memory, as tokens
    of four bytes.
    """

    tokens: int
    requests: int


def arrange(lines: Iterable[PlannedLine]) -> list[Group]:
    """Group equal deterministic lines, in prefix order within each model."""
    ordered = sorted(lines, key=lambda row: (row.model, row.tokens, row.params, row.line))
    groups: list[Group] = []
    for _, same in groupby(ordered, key=lambda row: (row.model, row.tokens, row.params)):
        equal = tuple(same)
        if equal[0].deterministic:
            groups.append(Group(equal))
        else:
            groups.extend(Group((row,)) for row in equal)
    return groups


def cut(groups: Iterable[Group], limits: ChunkLimits) -> Iterator[list[Group]]:
    """Cut groups, in order, into chunks of one model each.

    A group is never cut, as its answer is computed in one place; a request larger than the budget
    gets a chunk of its own.
    """
    chunk: list[Group] = []
    params: set[str] = set()
    tokens = 0
    for group in groups:
        leader = group.leader
        size = _size(group, params)
        full = chunk and (
            len(chunk) >= limits.requests
            or tokens + size > limits.tokens
            or leader.model != chunk[0].leader.model
        )
        if full:
            yield chunk
            chunk, params, tokens = [], set(), 0
            size = _size(group, params)
        chunk.append(group)
        tokens += size
        params.add(leader.params)
    if chunk:
        yield chunk


def _size(group: Group, known: Collection[str]) -> int:
    """The budget of a group, and its weight beyond the prompt; ``known`` are parameters counted."""
    leader = group.leader
    beside = leader.weight(with_params=leader.params not in known) - leader.prompt_tokens
    return leader.budget + beside + sum(len(row.custom_id) // 4 for row in group.lines[1:])


def shared_tokens(groups: Iterable[Group], block_size: int) -> int:
    """Prompt tokens that a prefix cache is expected to save, in whole blocks.

    Each prompt in prefix order shares with the one before it the longest prefix it shares with any
    earlier one. The last token of a prompt is always computed, as its logits are needed.
    """
    saved = 0
    before: PlannedLine | None = None
    for group in groups:
        row = group.leader
        if before is not None and before.model == row.model:
            common = min(common_prefix(before.tokens, row.tokens), row.prompt_tokens - 1)
            saved += common // block_size * block_size
        before = row
    return saved


def common_prefix(first: bytes, second: bytes) -> int:
    """Tokens that two packed prompts have in common at their start."""
    size = min(len(first), len(second))
    # The highest differing bit of two big-endian numbers marks the first differing byte.
    difference = int.from_bytes(first[:size], "big") ^ int.from_bytes(second[:size], "big")
    return (size - (difference.bit_length() + 7) // 8) // 4
