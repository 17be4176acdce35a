"""The order in which a known set of prompts is best computed, and what it saves.

Prompts form a tree of prefixes. Walked depth first, requests that share a prefix run next to each
other, so that the prefix cache computes it once and holds it only as long as it is of use
(BatchLLM, Zheng et al. 2024). Where the walk has a choice, it takes the branch with the longest
outputs first: a request that runs long and starts late would run alone at the end (longest
processing time first, Graham 1969). Imports no torch; prompts are packed, since bytes are compared
faster than numbers.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np


def pack_tokens(ids: Sequence[int]) -> bytes:
    """Token ids as big-endian 32-bit words, so that comparing bytes compares ids."""
    return np.asarray(ids, dtype=">u4").tobytes()


def common_prefix(first: bytes, second: bytes) -> int:
    """Tokens that two packed prompts have in common at their start."""
    size = min(len(first), len(second))
    # The highest differing bit of two big-endian numbers marks the first differing byte.
    difference = int.from_bytes(first[:size], "big") ^ int.from_bytes(second[:size], "big")
    return (size - (difference.bit_length() + 7) // 8) // 4


@dataclass(slots=True)
class _Node:
    """A prefix of so many tokens, and what begins with it: prompts and longer prefixes.

    ``output`` is the longest output below it, in tokens; a child is a prompt's index or a node.
    """

    depth: int
    output: int = 0
    children: list["_Node | int"] = field(default_factory=list)

    def take(self, child: "_Node | int", output: int) -> None:
        self.children.append(child)
        self.output = max(self.output, output)


def depth_first(prompts: Sequence[bytes], outputs: Sequence[int], block: int) -> list[int]:
    """Order prompts by a depth-first walk of their prefix tree, longest outputs first.

    Args:
        prompts: packed by `pack_tokens`.
        outputs: tokens that each one's output may take.
        block: tokens of a block of the prefix cache: a prefix counts in whole blocks.

    Returns:
        Indices into ``prompts``. Equals keep their order.
    """
    order = sorted(range(len(prompts)), key=prompts.__getitem__)
    root = _tree(order, prompts, outputs, block)
    walk: list[int] = []
    left: list[_Node | int] = [root]
    while left:
        node = left.pop()
        if isinstance(node, int):
            walk.append(node)
            continue
        longest = {
            place: child.output if isinstance(child, _Node) else outputs[child]
            for place, child in enumerate(node.children)
        }
        ranked = sorted(longest, key=lambda place: -longest[place])
        left.extend(node.children[place] for place in reversed(ranked))
    return walk


def _tree(
    order: Sequence[int], prompts: Sequence[bytes], outputs: Sequence[int], block: int
) -> _Node:
    """The prefix tree of prompts in lexicographic order, built along its rightmost path."""
    path = [_Node(0)]
    before: int | None = None
    for index in order:
        if before is not None:
            shared = common_prefix(prompts[before], prompts[index]) // block * block
            _descend(path, shared, before, outputs)
        before = index
    if before is not None:
        path[-1].take(before, outputs[before])
    while len(path) > 1:
        node = path.pop()
        path[-1].take(node, node.output)
    return path[0]


def _descend(path: list[_Node], shared: int, last: int, outputs: Sequence[int]) -> None:
    """Hang up prompt ``last``, of which the next one shares so many tokens."""
    child: _Node | int = last
    output = outputs[last]
    while path[-1].depth > shared:
        node = path.pop()
        node.take(child, output)
        child, output = node, node.output
    if path[-1].depth < shared:
        path.append(_Node(shared))
    path[-1].take(child, output)


def saved_tokens(prompts: Iterable[bytes], block: int) -> int:
    """Prompt tokens that a prefix cache should save when these run in this order, a walk as above.

    Each shares with the one before it the longest prefix that it shares with any earlier one. Whole
    blocks count, and the last token of a prompt is always computed, as its scores are needed.
    """
    saved = 0
    before = b""
    for prompt in prompts:
        common = min(common_prefix(before, prompt), max(0, len(prompt) // 4 - 1))
        saved += common // block * block
        before = prompt
    return saved
