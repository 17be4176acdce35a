"""Which tokens of a step tell the log-probabilities of prompts."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.executors.inputs import StepInputs
from engine.scheduler.step import Scoring, Step, TokenScores

# Rows of the vocabulary are computed in slices of so many logits.
SLICE_LOGITS = 2**22


@dataclass(frozen=True, slots=True, eq=False)
class ScoredRows:
    """R tokens of a step, after each of which the probability of one token is wanted.

    Attributes:
        rows: int64 [R]; their places in the step, ascending.
        targets: int64 [R]; the tokens that follow them in their prompts.
        top: the most alternatives that are wanted for one.
    """

    rows: NDArray[np.int64]
    targets: NDArray[np.int64]
    top: int
    _wanted: tuple[tuple[int, Scoring], ...]  # slot, and what is wanted of its work

    @classmethod
    def of(cls, step: Step, inputs: StepInputs) -> "ScoredRows | None":
        """Those of a step that is laid out; ``None`` where no work has any."""
        if all(work.scoring is None for work in step.others):
            return None
        first = len(step.decodes)
        rows: list[NDArray[np.int64]] = []
        wanted: list[tuple[int, Scoring]] = []
        for index, work in enumerate(step.others):
            if work.scoring is not None:
                start = int(inputs.query_start[first + index])
                rows.append(np.arange(start, start + len(work.scoring.targets)))
                wanted.append((work.slot, work.scoring))
        targets = [target for _, scoring in wanted for target in scoring.targets]
        top = max(scoring.top for _, scoring in wanted)
        joined = np.concatenate(rows)
        return cls(joined, np.array(targets, dtype=np.int64), top, tuple(wanted))

    def by_slot(self, scores: TokenScores) -> dict[int, TokenScores]:
        """The scores of all rows, each slot's apart."""
        found, start = {}, 0
        for slot, scoring in self._wanted:
            end, top = start + len(scoring.targets), scoring.top
            found[slot] = TokenScores(
                scores.logprobs[start:end],
                scores.top_ids[start:end, :top],
                scores.top_logprobs[start:end, :top],
            )
            start = end
        return found
