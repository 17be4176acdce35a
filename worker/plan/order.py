"""The order of a plan: depth-first through the prefix tree, equal lines together, cut into chunks.

Pure functions over one window of the input; `engine.prefix_order` walks the tree.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from engine.prefix_order import common_prefix, depth_first, saved_tokens
from worker.plan.rows import Group, PlannedLine


@dataclass(frozen=True, slots=True)
class ChunkLimits:
    """How large a chunk may grow: tokens and requests to compute.

    The tokens are those of prompts and outputs, plus what else of a request takes memory, as tokens
    of four bytes.
    """

    tokens: int
    requests: int


def arrange(lines: Iterable[PlannedLine], block: int) -> list[Group]:
    """Group equal deterministic lines, and walk each model's prefix tree.

    Args:
        block: tokens of a block of the engine's prefix cache.
    """
    arranged: list[Group] = []
    ordered = sorted(lines, key=attrgetter("model", "line"))
    for _, of_model in groupby(ordered, key=attrgetter("model")):
        groups = _grouped(of_model)
        prompts = [group.leader.tokens for group in groups]
        outputs = [group.leader.output_limit for group in groups]
        arranged.extend(groups[index] for index in depth_first(prompts, outputs, block))
    return arranged


def _grouped(lines: Iterable[PlannedLine]) -> list[Group]:
    equal: dict[tuple[object, ...], list[PlannedLine]] = {}
    groups: list[list[PlannedLine]] = []
    for row in lines:
        key = row.tokens, row.lengths, row.params, row.texts
        known = equal.get(key) if row.deterministic else None
        if known is not None:
            known.append(row)
            continue
        groups.append([row])
        if row.deterministic:
            equal[key] = groups[-1]
    return [Group(tuple(rows)) for rows in groups]


def cut(groups: Iterable[Group], limits: ChunkLimits) -> Iterator[list[Group]]:
    """Cut groups, in order, into chunks of one model each.

    A group is never cut, because its leader is computed once; a request larger than the limit gets
    a chunk of its own. Chunks go to different workers, so a prefix that is shared across a cut is
    computed on both sides. A full chunk is therefore cut in its second half, where neighbours share
    the shortest prefix, and what follows the cut begins the next chunk.
    """
    chunk = _Filling(limits)
    for group in groups:
        while not chunk.takes(group):
            yield chunk.cut(group)
        chunk.add(group)
    if chunk.groups:
        yield chunk.groups


class _Filling:
    """A chunk that is being filled."""

    def __init__(self, limits: ChunkLimits) -> None:
        self._limits = limits
        self._start([])

    def _start(self, groups: list[Group]) -> None:
        self.groups: list[Group] = []
        self._params: set[str] = set()
        self._tokens = self._requests = 0
        for group in groups:
            self.add(group)

    def takes(self, group: Group) -> bool:
        """Whether a group fits; an empty chunk takes any."""
        if not self.groups:
            return True
        return (
            self._requests + _requests(group) <= self._limits.requests
            and self._tokens + _size(group, self._params) <= self._limits.tokens
            and group.leader.model == self.groups[0].leader.model
        )

    def add(self, group: Group) -> None:
        self._tokens += _size(group, self._params)
        self._requests += _requests(group)
        self._params.add(group.leader.params)
        self.groups.append(group)

    def cut(self, following: Group) -> list[Group]:
        """End the chunk ahead of ``following`` or earlier; what comes after the cut stays."""
        groups = [*self.groups, following]
        if following.leader.model != groups[0].leader.model:
            self._start([])
            return groups[:-1]
        first = max(1, len(self.groups) // 2)
        common = [
            common_prefix(groups[i - 1].leader.tokens, groups[i].leader.tokens)
            for i in range(first, len(groups))
        ]
        # The last of equally good places: chunks are as full as they can be.
        at = max(range(len(common)), key=lambda i: (-common[i], i)) + first
        self._start(groups[at:-1])
        return groups[:at]


def _size(group: Group, known: Collection[str]) -> int:
    """A group's budget and its weight beyond the prompts that are computed, in tokens.

    ``known`` are the parameters that the chunk has already.
    """
    leader = group.leader
    beside = leader.weight(with_params=leader.params not in known) - leader.computed_tokens
    return leader.budget + beside + sum(len(row.custom_id) // 4 for row in group.lines[1:])


def _requests(group: Group) -> int:
    return len(group.leader.computed_prompts)


def shared_tokens(groups: Iterable[Group], block: int) -> int:
    """Prompt tokens that a prefix cache is expected to save when these run in order.

    Prompts whose log-probabilities are wanted take nothing from it.

    Lines with several prompts are taken to run as `worker.run.chunk_run` orders them: each prompt
    beside those that it shares a prefix with.
    """
    saved = 0
    for _, of_model in groupby(groups, key=lambda group: group.leader.model):
        rows = [group.leader for group in of_model if not group.leader.scored]
        prompts = [prompt for row in rows for prompt in row.computed_prompts]
        if any(row.lengths for row in rows):
            prompts.sort()
        saved += saved_tokens(prompts, block)
    return saved
