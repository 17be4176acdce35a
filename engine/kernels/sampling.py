"""One token a row of logits, each row by its own temperature, top-k, top-p and min-p."""

import torch
from torch import Tensor

from engine.kernels.backend import Backend
from engine.kernels.draws import DRAW, Draws, Tokens
from engine.kernels.expect import expect


def draw(backend: Backend, logits: Tensor, draws: Draws) -> Tokens:
    """Draw one token a row.

    A row's weights are softmax(logits / temperature). In the order of weights, and of token ids
    where weights are equal, top-k and then top-p keep the beginning of the row; min-p drops weights
    below ``min_p`` times the maximum. The cumulative sum of what is left, in the order of ids, is
    inverted at ``uniform``.

    Args:
        backend: computes it.
        logits: float32 [rows, vocab].
        draws: [rows] of `DRAW`; ``uniform`` is in [0, 1).

    Returns:
        int64 [rows].

    Raises:
        ValueError: the shapes or dtypes are wrong.
    """
    expect("logits", logits, (len(draws), None), torch.float32)
    if draws.dtype != DRAW:
        raise ValueError(f"draws must be of {DRAW}, not {draws.dtype}.")
    return backend.draw(logits, draws)
