"""Steps on a CPU that tell the log-probabilities of prompts, beside what every step gives."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.executors.executor import Executor, Scores
from engine.executors.inputs import StepInputs
from engine.executors.scored_rows import ScoredRows
from engine.sampling.scoring import score_tokens
from engine.scheduler.step import TokenScores


def score_step(
    executor: Executor, inputs: StepInputs, scored: ScoredRows, most: int
) -> tuple[Scores, dict[int, TokenScores]]:
    """Compute a step; memory holds the vocabulary's logits of the sampled rows and of one slice.

    Args:
        executor: computes it.
        inputs: the step.
        scored: what is wanted of prompts.
        most: rows of a slice.

    Returns:
        What `Executor.launch` gives with logits, and by slot what was wanted.
    """
    sampled = inputs.sampled_rows
    rows = np.union1d(scored.rows, sampled)
    read = executor.scores_after(inputs, rows)
    kept: list[Tensor] = []
    pieces: list[tuple[Tensor, ...]] = []
    for first in range(0, len(rows), most):
        here = rows[first : first + most]
        logits = read(first, len(here))
        kept.append(logits[_places(here, sampled)])
        places = _places(here, scored.rows)
        begin = int(np.searchsorted(scored.rows, here[0]))
        targets = torch.from_numpy(scored.targets[begin : begin + len(places)])
        wanted = logits if len(places) == len(here) else logits[places]
        pieces.append(score_tokens(wanted, targets.to(logits.device), scored.top))
    logprobs, ids, values = (torch.cat(column).cpu() for column in zip(*pieces, strict=True))
    found = TokenScores(logprobs.numpy(), ids.int().numpy(), values.numpy())
    logits = torch.cat(kept)
    return Scores(logits.argmax(dim=-1).cpu().numpy(), logits), scored.by_slot(found)


def _places(here: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where those of ``rows`` are that lie in a slice; all are ascending."""
    places: NDArray[np.int64] = np.flatnonzero(np.isin(here, rows, assume_unique=True))
    return places
