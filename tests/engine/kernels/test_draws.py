"""Draws from rows of logits: C against torch, and both against the definition."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.kernels.draws import DRAW, Draws
from engine.kernels.native.sampling import Drawing
from engine.kernels.reference.backend import ReferenceBackend
from engine.kernels.sampling import draw
from native import needs_kernels

REFERENCE = ReferenceBackend()
unit = st.floats(0, 1, exclude_max=True, width=32)
parameters = st.tuples(
    st.sampled_from([0.0, 0.05, 0.7, 1.0, 2.0]),
    st.sampled_from([1.0, 1.0, 0.9991, 0.9003, 0.5017, 0.0101]),  # no sums of equal weights
    st.sampled_from([0.0, 0.0, 0.05, 0.9]),
    unit,
    st.sampled_from([0, 0, 1, 3, 40, 500, 100_000]),
)
KINDS = ("normal", "peaked", "flat", "ties", "banned", "one", "few")


def make(kind: str, rows: int, vocab: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, vocab, generator=generator)
    match kind:
        case "peaked":
            logits *= 12
        case "flat":
            logits *= 1e-3
        case "ties":
            logits = logits.round()
        case "banned":
            logits[:, ::3] = -torch.inf
        case "one":
            logits[:] = -torch.inf
            logits[:, vocab // 2] = 1.0
        case "few":
            logits[:, 7:] = -torch.inf
    return logits


def places(logits: Tensor, draws: Draws) -> Tensor:
    """Each row's weights, what was not kept zeroed, by the definition, in float64."""
    rows = []
    for row, parameters in zip(logits.double(), draws, strict=True):
        temperature = float(parameters["temperature"]) or 1.0
        probs = torch.softmax(row / temperature, -1)
        ranked, ids = probs.sort(descending=True, stable=True)
        if parameters["top_k"]:
            ranked[int(parameters["top_k"]) :] = 0
        if parameters["top_p"] < 1:
            before = ranked.cumsum(0) - ranked
            ranked[before >= float(parameters["top_p"]) * ranked.sum()] = 0
        ranked[ranked < float(parameters["min_p"]) * probs.max()] = 0
        rows.append(torch.zeros_like(probs).scatter_(0, ids, ranked))
    return torch.stack(rows)


def assert_right(tokens: np.ndarray, logits: Tensor, draws: Draws) -> None:
    """The token's stretch of the cumulative weights holds the uniform number, but for rounding."""
    weights = places(logits, draws)
    for token, row, kept, parameters in zip(tokens, logits, weights, draws, strict=True):
        if parameters["temperature"] == 0 or not row.isfinite().any():
            assert token == int(row.argmax())
            continue
        total, wanted = kept.sum(), float(parameters["uniform"])
        end = float(kept[: token + 1].sum() / total)
        start = end - float(kept[token] / total)
        slack = 1e-4
        assert start - slack <= wanted <= end + slack
        if kept[token] == 0:  # only at the edge of what is kept, where rounding decides
            nearest = kept[kept > 0].min()
            probs = torch.softmax(row.double() / float(parameters["temperature"]), -1)
            assert probs[token] > 0
            assert abs(probs[token] - nearest) < 1e-4 or float(parameters["min_p"]) > 0


@needs_kernels
@settings(deadline=None, max_examples=200)
@given(
    kind=st.sampled_from(KINDS),
    vocab=st.sampled_from([1, 5, 16, 17, 1000, 1024, 1030, 5000]),
    rows=st.lists(parameters, min_size=1, max_size=12),
    threads=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_a_draw_is_right(
    kind: str,
    vocab: int,
    rows: list[tuple[float, float, float, float, int, int]],
    threads: int,
    seed: int,
) -> None:
    logits, draws = make(kind, len(rows), vocab, seed), np.array(rows, dtype=DRAW)
    assert_right(draw(REFERENCE, logits, draws), logits, draws)
    assert_right(Drawing(vocab, threads)(logits, draws), logits, draws)


@needs_kernels
def test_c_and_torch_draw_the_same() -> None:
    vocab, count = 49_152, 64
    logits = make("normal", count, vocab, 1) * 3
    random = np.random.default_rng(5)
    draws = np.zeros(count, dtype=DRAW)
    draws["temperature"] = random.choice([0, 0.7, 1.0], count)
    draws["top_p"] = random.choice([1, 0.95, 0.5], count)
    draws["top_k"] = random.choice([0, 1, 40, 3000], count)
    draws["min_p"] = random.choice([0, 0.1], count)
    draws["uniform"] = random.random(count)
    ours, theirs = Drawing(vocab, 2)(logits, draws), draw(REFERENCE, logits, draws)
    assert (ours == theirs).mean() > 0.9, "rounding decides a few"
    assert_right(ours, logits, draws)


@needs_kernels
def test_draws_of_a_row_do_not_depend_on_its_company() -> None:
    logits = make("normal", 40, 3000, 3)
    draws = np.zeros(40, dtype=DRAW)
    draws["temperature"], draws["top_p"] = 1, 0.9
    draws["uniform"] = np.linspace(0, 0.99, 40)
    drawing = Drawing(3000, 2)
    whole = drawing(logits, draws)
    for i in range(40):
        assert drawing(logits[i : i + 1].clone(), draws[i : i + 1])[0] == whole[i]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="logits must be of shape"):
        draw(REFERENCE, torch.zeros(2, 5), np.zeros(3, dtype=DRAW))
    no_draws: Any = np.zeros(2)
    with pytest.raises(ValueError, match="draws must be of"):
        draw(REFERENCE, torch.zeros(2, 5), no_draws)


def drawn(logits: Tensor, **parameters: float) -> int:
    draws: Draws = np.zeros(1, dtype=DRAW)
    draws[0] = (1.0, 1.0, 0.0, 0.5, 0)
    for name, value in parameters.items():
        draws[name] = value
    return int(Drawing(logits.shape[1], 1)(logits, draws)[0])


@needs_kernels
@pytest.mark.parametrize("outlier", [30.0, 300.0, 3e38])
def test_a_broken_logit_hides_none_and_writes_nowhere(outlier: float) -> None:
    logits = torch.zeros(1, 64)
    logits[0, 3], logits[0, 19] = outlier, torch.nan
    for parameters in ({"temperature": 0.0}, {"top_p": 0.9}, {"top_k": 2}, {}):
        assert drawn(logits, **parameters) == 3


@needs_kernels
def test_an_infinite_logit_is_drawn() -> None:
    logits = torch.zeros(1, 70)
    logits[0, 65] = torch.inf
    for parameters in ({"temperature": 0.0}, {"top_p": 0.9}, {"top_k": 2}, {}):
        assert drawn(logits, **parameters) == 65


@needs_kernels
def test_all_broken_is_still_a_token() -> None:
    logits = torch.full((1, 70), torch.nan)
    assert 0 <= drawn(logits, top_p=0.9) < 70
    assert 0 <= drawn(logits, temperature=0.0) < 70
