"""Draws from rows of logits in plain torch: what top-k and top-p keep is found by sorting."""

import numpy as np
import torch
from torch import Tensor

from engine.kernels.draws import Draws, Tokens


def draw(logits: Tensor, draws: Draws) -> Tokens:
    """int64 [rows] from float32 [rows, vocab]; see `engine.kernels.sampling.draw`."""

    def column(name: str) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(draws[name])).to(logits.device)[:, None]

    temperature, min_p, uniform = column("temperature"), column("min_p"), column("uniform")
    top_k, top_p = column("top_k"), column("top_p")
    cold = temperature == 0
    probs = torch.softmax(logits / torch.where(cold, 1.0, temperature), dim=-1)
    filtered = ((top_k > 0) | (top_p < 1))[:, 0].nonzero()[:, 0]
    allowed = probs >= min_p * probs.amax(dim=-1, keepdim=True)
    if len(filtered):
        allowed[filtered] &= _head(probs[filtered], top_k[filtered], top_p[filtered])
    sums = probs.masked_fill(~allowed, 0).cumsum(dim=-1)
    total = sums[:, -1:]
    # The product may round up to the total itself, which no cumulative weight passes.
    wanted = torch.minimum(uniform * total, total.nextafter(torch.zeros_like(total)))
    drawn = torch.searchsorted(sums, wanted, right=True)
    # A row whose tokens are all banned has nothing to draw, but must give some token.
    sure = cold | ~(total > 0)
    tokens = torch.where(sure, logits.argmax(dim=-1, keepdim=True), drawn)[:, 0]
    found: Tokens = tokens.cpu().numpy()
    return found


def _head(probs: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """bool [rows, vocab]: what top-k and then top-p keep."""
    ranked, ids = probs.sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(probs.shape[1], device=probs.device)
    ranked = ranked.masked_fill((top_k > 0) & (rank >= top_k), 0)
    before = ranked.cumsum(dim=-1) - ranked
    mass = top_p * ranked.sum(dim=-1, keepdim=True)
    keep = (ranked > 0) & ((before < mass) | (top_p >= 1))
    return torch.zeros_like(keep).scatter_(1, ids, keep)
