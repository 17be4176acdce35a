"""Cases of sampling, beside torch's argmax and topk."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.kernels.fused.sampling import (
    ALTERNATIVES,
    REPORT_IDS,
    REPORT_WIDTH,
    Column,
    SampledRows,
    SamplerTensors,
    Workspace,
)
from gpu.kernels.cases import Case, Kit, Launch, Written
from gpu.kernels.inputs import Inputs

TOP_K, TOP_P = 50, 0.9
_FEW_DIFFER = 1e-2  # a token on the edge of top-p may be in or out


def draws(inputs: Inputs, rows: int, width: int) -> Iterator[Case]:
    """Every way to draw, and a report of log-probabilities."""
    argmax = _library(inputs, f"torch.argmax {rows} x {width:,}", rows, width, _argmax)
    topk = _library(inputs, f"torch.topk({TOP_K}) {rows} x {width:,}", rows, width, _topk)
    yield argmax
    yield _draw(inputs, "greedy", rows, width, argmax, temperature=0)
    yield _draw(inputs, "Gumbel", rows, width, argmax)
    yield topk
    yield _draw(inputs, "top-k", rows, width, topk, top_k=TOP_K)
    yield _draw(inputs, "top-p", rows, width, topk, top_p=TOP_P)
    yield _draw(inputs, "top-k, top-p", rows, width, topk, top_k=TOP_K, top_p=TOP_P)
    yield _report(inputs, rows, width, topk)


def _argmax(logits: Tensor) -> object:
    return logits.argmax(-1)


def _topk(logits: Tensor) -> object:
    return logits.topk(TOP_K)


def _logits(inputs: Inputs, rows: int, width: int) -> Tensor:
    return inputs.normal(rows, width, dtype=torch.float32).mul_(3)


def _library(
    inputs: Inputs, name: str, rows: int, width: int, call: Callable[[Tensor], object]
) -> Case:
    def make() -> tuple[Launch, Written]:
        logits = _logits(inputs, rows, width)
        return lambda kit: call(logits), lambda: []

    return Case(name, 4 * rows * width, 0, 0, inputs.dtype, make, library=True)


def _state(
    inputs: Inputs, rows: int, temperature: float = 1, top_k: int = 0, top_p: float = 1
) -> SamplerTensors:
    table = np.zeros((rows, len(Column)), np.int32)
    reals = table.view(np.float32)
    reals[:, Column.INVERSE_TEMPERATURE] = 1 / temperature if temperature else 0
    reals[:, Column.TOP_P] = top_p
    table[:, Column.TOP_K] = top_k
    table[:, Column.SEED_LOW] = np.arange(rows) * 7919
    reals[:, Column.REPETITION] = 1
    table[:, [Column.COUNT_ROW, Column.LIST_ROW]] = -1
    table[:, Column.FILTERED] = top_k > 0 or top_p < 1
    table[:, Column.REPORTED] = ALTERNATIVES

    def none(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.int32, device=inputs.device)

    return SamplerTensors(inputs.ints(table), none(rows), none(0, 1), none(0, 0))


def _rows(inputs: Inputs, rows: int, width: int) -> SampledRows:
    numbers = inputs.ints(np.arange(rows, dtype=np.int32))
    poison = torch.full_like(numbers, -7)
    return SampledRows(_logits(inputs, rows, width), numbers, numbers + 100, poison)


def _draw(inputs: Inputs, kind: str, rows: int, width: int, beside: Case, **settings: Any) -> Case:
    filtered = "top_k" in settings or "top_p" in settings

    def make() -> tuple[Launch, Written]:
        state = _state(inputs, rows, **settings)
        taken, room = _rows(inputs, rows, width), Workspace(rows, width, inputs.device)

        def launch(kit: Kit) -> None:
            kit.sampling.draw(taken, state, room, adjusted=False, filtered=filtered)

        return launch, lambda: [taken.tokens, state.last_tokens]

    return Case(
        f"draw {rows} x {width:,}, {kind}",
        4 * rows * width,
        0,
        0,
        inputs.dtype,
        make,
        most_error=_FEW_DIFFER if filtered or kind == "Gumbel" else 0.0,
        beside=beside,
    )


def _report(inputs: Inputs, rows: int, width: int, beside: Case) -> Case:
    def make() -> tuple[Launch, Written]:
        state, taken = _state(inputs, rows), _rows(inputs, rows, width)
        taken.tokens.copy_(taken.slots)
        room = Workspace(rows, width, inputs.device)
        report = torch.full((rows, REPORT_WIDTH), -7, dtype=torch.int32, device=inputs.device)
        values = report[:, :REPORT_IDS].view(torch.float32)

        def launch(kit: Kit) -> None:
            kit.sampling.report(taken, state, room, report)

        return launch, lambda: [values, report[:, REPORT_IDS:]]

    name = f"report {rows} x {width:,}, {ALTERNATIVES} alternatives"
    return Case(name, 4 * rows * width, 0, 0, inputs.dtype, make, most_error=1e-3, beside=beside)
