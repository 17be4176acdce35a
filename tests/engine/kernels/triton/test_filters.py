"""What top-k, top-p and min-p leave in, in the oracle and in Triton's kernels, against a sort."""

import math

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from engine.kernels.reference.device_sampling import gumbel
from engine.kernels.triton.sampling import sampling
from kernels.sampled import CPU, ORACLE, TRITON, Ask, Rows

# The interpreter computes with numpy, which warns of what a device does silently.
pytestmark = pytest.mark.filterwarnings("ignore:.* encountered in .*:RuntimeWarning")


def left_in(logits: Tensor, ask: Ask) -> Tensor:
    """bool [vocab] by a sort in float64, straight from the definition."""
    wide = logits.double()
    weights = ((wide - wide.max()) / ask.temperature).exp()
    order = sorted(range(len(wide)), key=lambda i: (-wide[i].item(), i))
    order = order[: ask.top_k] if ask.top_k else order
    share = ask.top_p * math.fsum(weights[order].tolist())
    keep, before = torch.zeros(len(wide), dtype=torch.bool), 0.0
    for i in order:
        if ask.top_p >= 1 or before < share:
            keep[i] = weights[i] >= ask.min_p and wide[i] > -torch.inf
        before += weights[i].item()
    return keep


def edge_draws(logits: Tensor, ask: Ask) -> tuple[list[Ask], list[int]]:
    """Draws that show the edge of what is left in, and the tokens that they must give.

    One takes the last token that is left in; one would take the first that is not, were it in. Each
    where it is probable enough.
    """
    keep = left_in(logits, ask)
    weights = logits.double() / ask.temperature
    inside = weights.masked_fill(~keep, -torch.inf)
    edge = [int(keep.nonzero()[(weights[keep] == weights[keep].min()).nonzero()[-1, 0]])]
    left_out = weights.masked_fill(keep, -torch.inf)
    edge.append(int(left_out.argmax()))
    mass = inside.exp().sum()
    edge = [token for token in edge if weights[token].exp() > 1e-3 * mass]
    asks, expected = [], []
    for token in edge:
        candidates = inside.clone()
        candidates[token] = weights[token]
        for position in range(20_000):
            noise = gumbel(ask.seed, position, len(logits), CPU).double()
            if int((candidates + noise).argmax()) == token:
                asks.append(Ask(**{**vars(ask), "position": position, "slot": None}))
                expected.append(int((inside + noise).argmax()))
                break
    assert len(asks) == len(edge) > 0, "no draw shows the edge"
    return asks, expected


NORMAL = torch.randn(1003, generator=torch.Generator().manual_seed(1)) * 2
HUGE = torch.where(torch.arange(300) == 211, 90.0, NORMAL[:300])
BANNED = torch.where(torch.arange(300) % 9 == 4, NORMAL[:300], -torch.inf)
TIED = (torch.arange(600) * 7 % 5).float()
QUANTIZED = NORMAL.bfloat16().float()
DENORMAL = torch.arange(40) * 1e-42
SIGNED_ZEROS = torch.where(torch.arange(64) % 2 == 0, 0.0, -0.0)

EDGES = {
    "k of many": (NORMAL, Ask(temperature=2, top_k=40)),
    "k of ties across": (TIED, Ask(top_k=3)),
    "k among all equal": (torch.zeros(777), Ask(top_k=5)),
    "k of 1": (QUANTIZED, Ask(top_k=1)),
    "k above what is finite": (BANNED, Ask(temperature=2, top_k=100)),
    "k of denormals": (DENORMAL, Ask(top_k=7)),
    "k of zeros of both signs": (SIGNED_ZEROS, Ask(top_k=9)),
    "k with p": (QUANTIZED, Ask(temperature=2, top_k=30, top_p=0.7)),
    "k with p and min-p": (NORMAL, Ask(temperature=2, top_k=60, top_p=0.93, min_p=0.3)),
    "p": (NORMAL, Ask(temperature=0.7, top_p=0.6)),
    "p of quantized": (QUANTIZED, Ask(top_p=0.35)),
    "p of ties": (TIED, Ask(temperature=0.6, top_p=0.3)),
    "p among all equal": (torch.full((50,), -3.0), Ask(top_p=0.501)),
    "p of one huge": (HUGE, Ask(temperature=2, top_p=0.999)),
    "p of few": (BANNED, Ask(temperature=2, top_p=0.8)),
    "a tiny p": (QUANTIZED, Ask(temperature=2, top_p=1e-6)),
    "min-p": (NORMAL, Ask(temperature=2, min_p=0.25)),
    "min-p of 1": (TIED, Ask(min_p=1.0)),
    "p with min-p": (QUANTIZED, Ask(temperature=2, top_p=0.5, min_p=0.15)),
}


@pytest.mark.parametrize("again", [False, True], ids=["candidates", "whole rows"])
def test_filters_leave_in_exactly_what_a_sort_says(
    again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All draws in few launches; ``again`` leaves room for so few that rows are read again."""
    if again:
        monkeypatch.setattr(sampling, "CANDIDATES", 4)
    wrong = []
    for name, (logits, ask) in EDGES.items():
        if again and name not in ("k of ties across", "k with p", "p of few", "p with min-p"):
            continue
        asks, expected = edge_draws(logits, ask)
        rows = logits.repeat(len(asks), 1)
        if Rows(rows, asks, CPU).draw(ORACLE) != expected:
            wrong.append(f"{name}, oracle")
        tested = Rows(rows, asks)
        if tested.draw(TRITON) != expected:
            wrong.append(f"{name}, Triton")
        if again and (tested.room.found <= 4).any():
            wrong.append(f"{name}, too few candidates")
    assert not wrong


def test_a_bound_leaves_few_candidates_of_a_long_row() -> None:
    logits = torch.randn(2, 20_000) * 3
    rows = Rows(logits, [Ask(top_k=20), Ask(top_p=0.9)])
    tokens = rows.draw(TRITON)
    for row, found in enumerate(rows.room.found.tolist()):
        keep = left_in(logits[row], [Ask(top_k=20), Ask(top_p=0.9)][row])
        assert keep[tokens[row]]
        assert keep.sum() <= found <= 2048
    assert rows.room.found[0] < 60
