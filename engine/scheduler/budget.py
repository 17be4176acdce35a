"""How a step's tokens are dealt out."""

import numpy as np

from engine.scheduler.step import Ints


class TokenBudget:
    """What is left of the tokens that a step may have.

    Args:
        tokens: of the step.
        chunked: whether a prompt may be cut. If not, the first work of a step may exceed its
            tokens, and any other one waits until it fits whole.

    Attributes:
        left: tokens; below 0 where the first work exceeds them.
    """

    def __init__(self, tokens: int, *, chunked: bool) -> None:
        self.left = tokens
        self._chunked = chunked

    def spend(self, count: int) -> None:
        """Take so many tokens."""
        self.left -= count

    def chunk(self, wanted: int, *, first: bool) -> int:
        """How many of the wanted tokens a sequence gets.

        Args:
            wanted: by the sequence.
            first: whether the step has no work yet.
        """
        if self._chunked or wanted <= self.left:
            return min(wanted, max(self.left, 0))
        return wanted if first else 0

    def chunks(self, wanted: Ints, *, first: bool) -> Ints:
        """`chunk` for sequences one after the other, each of which takes what it gets."""
        if wanted.sum() <= self.left:
            return wanted
        if self._chunked:
            before = np.cumsum(wanted) - wanted
            clipped: Ints = np.clip(self.left - before, 0, wanted)
            return clipped
        rest, counts = TokenBudget(self.left, chunked=False), []
        for count in wanted.tolist():
            counts.append(rest.chunk(count, first=first))
            rest.spend(counts[-1])
            first = first and not counts[-1]
        return np.array(counts, dtype=np.int64)
