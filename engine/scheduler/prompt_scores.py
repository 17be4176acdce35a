"""The log-probabilities of one prompt's tokens, gathered while it is computed."""

import numpy as np

from engine.scheduler.step import Scoring, TokenScores


class PromptScores:
    """Scores of every token of a prompt but the first, as far as they are known.

    They outlive a preemption: what was known then need not be computed again.

    Args:
        prompt: token ids.
        top: alternatives to report for each.

    Attributes:
        known: how many of the tokens behind the first have their scores, from the start.
    """

    def __init__(self, prompt: tuple[int, ...], top: int) -> None:
        self._prompt = prompt
        self._top = top
        self.known = 0
        self._scores: TokenScores | None = None

    @property
    def complete(self) -> bool:
        """Whether all are known."""
        return self.known == len(self._prompt) - 1

    def scoring(self, start: int, count: int) -> Scoring | None:
        """What is wanted of a work that computes ``count`` tokens from ``start`` on."""
        targets = self._prompt[start + 1 : start + count + 1]
        if not targets or start + len(targets) <= self.known:
            return None
        return Scoring(targets, self._top)

    def put(self, start: int, scores: TokenScores) -> None:
        """Take what a work gave, whose first token is at ``start``."""
        if self._scores is None:
            count, top = len(self._prompt) - 1, scores.top_ids.shape[1]
            self._scores = TokenScores(
                np.empty(count, dtype=np.float32),
                np.empty((count, top), dtype=np.int32),
                np.empty((count, top), dtype=np.float32),
            )
        end = start + len(scores.logprobs)
        for kept, new in zip(self._scores, scores, strict=True):
            kept[start:end] = new
        self.known = max(self.known, end)

    @property
    def scores(self) -> TokenScores | None:
        """Of all tokens but the first; ``None`` where some are not known, or there are none."""
        return self._scores if self.complete else None
