"""One token a row of logits, each row by its own temperature, top-k, top-p and min-p."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.kernels.expect import expect
from engine.kernels.reference import functions as reference

# ``draw`` of sampling.c: temperature 0 takes the greatest, top_k 0 and top_p 1 keep all.
DRAW = np.dtype(
    [
        ("temperature", np.float32),
        ("top_p", np.float32),
        ("min_p", np.float32),
        ("uniform", np.float32),
        ("top_k", np.int32),
    ]
)
Draws = NDArray[np.void]


def draw(logits: Tensor, draws: Draws) -> NDArray[np.int64]:
    """Choose one token a row.

    A row's weights are softmax(logits / temperature). Top-k and then top-p keep a head of the row,
    sorted by weight and, of equal ones, by token id; min-p drops what is less than ``min_p`` times
    the greatest. Among what is left, in the order of ids, the cumulative weights are inverted at
    ``uniform``.

    Args:
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

    def column(name: str) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(draws[name])).to(logits.device)[:, None]

    chosen = reference.draw(
        logits,
        column("temperature"),
        column("top_k"),
        column("top_p"),
        column("min_p"),
        column("uniform"),
    )
    tokens: NDArray[np.int64] = chosen.cpu().numpy()
    return tokens
