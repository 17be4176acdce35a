"""Rows of logits and slots that ask for something, for the tests of sampling on a device."""

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.kernels.fused.sampling import (
    REPORT_WIDTH,
    Column,
    SampledRows,
    SamplerTensors,
    SamplingKernels,
    Workspace,
)
from engine.kernels.reference.device_sampling import ReferenceSampling
from engine.kernels.triton.launch import INTERPRETED
from engine.kernels.triton.sampling.sampling import TritonSampling

GPU = torch.cuda.is_available() and not INTERPRETED
DEVICE = torch.device("cuda" if GPU else "cpu")
CPU = torch.device("cpu")
TRITON, ORACLE = TritonSampling(), ReferenceSampling()


@dataclass
class Ask:
    """How one row is sampled."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    position: int = 0
    reported: int = -1
    slot: int | None = None  # the row's number


class Rows:
    """Rows of logits, and slots that ask for what ``asks`` say, on a device."""

    def __init__(self, logits: Tensor, asks: list[Ask], device: torch.device = DEVICE) -> None:
        self.vocab = logits.shape[1]
        slots = [row if ask.slot is None else ask.slot for row, ask in enumerate(asks)]
        table = torch.full((max(slots) + 1, len(Column)), 0x7F7F7F7F, dtype=torch.int32)
        for ask, slot in zip(asks, slots, strict=True):
            if slot >= 0:
                table[slot] = self._row(ask)
        self.rows = SampledRows(
            logits.to(device),
            torch.tensor(slots, dtype=torch.int32, device=device),
            torch.tensor([ask.position for ask in asks], dtype=torch.int32, device=device),
            torch.full((len(asks),), -7, dtype=torch.int32, device=device),
        )
        self.state = SamplerTensors(
            table.to(device),
            torch.full((len(table),), -9, dtype=torch.int32, device=device),
            torch.zeros(2, self.vocab, dtype=torch.int32, device=device),
            torch.zeros(2, 16, dtype=torch.int32, device=device),
        )
        self.filtered = any(self._narrow(ask) for ask in asks)
        self.room = Workspace(len(asks), self.vocab, device)
        for name in ("best", "sums", "bounds", "candidates"):
            getattr(self.room, name).fill_(torch.nan)
        for name in ("where", "histogram", "found", "candidate_ids", "top_keys", "top_ids"):
            getattr(self.room, name).fill_(0x7F7F7F7F)
        self.report = torch.full((len(asks), REPORT_WIDTH), -3, dtype=torch.int32, device=device)

    def _narrow(self, ask: Ask) -> bool:
        return ask.temperature > 0 and (ask.top_k > 0 or ask.top_p < 1 or ask.min_p > 0)

    def _row(self, ask: Ask) -> Tensor:
        words = torch.zeros(len(Column), dtype=torch.int32)
        reals = words.view(torch.float32)
        reals[Column.INVERSE_TEMPERATURE] = 1 / ask.temperature if ask.temperature else 0
        reals[Column.TOP_P], reals[Column.MIN_P] = ask.top_p, ask.min_p
        words[Column.TOP_K] = ask.top_k
        halves = torch.tensor([ask.seed]).view(torch.int32)
        words[Column.SEED_LOW], words[Column.SEED_HIGH] = halves[0], halves[1]
        words[[Column.COUNT_ROW, Column.LIST_ROW]] = -1
        words[Column.FILTERED] = self._narrow(ask)
        words[Column.REPORTED] = ask.reported
        return words

    def draw(self, kernels: SamplingKernels, adjusted: bool = False) -> list[int]:
        kernels.draw(self.rows, self.state, self.room, adjusted=adjusted, filtered=self.filtered)
        found: list[int] = self.rows.tokens.tolist()
        return found


def drawn(logits: Tensor, asks: list[Ask]) -> list[int]:
    """Triton's tokens, which the oracle must draw as well."""
    found = Rows(logits, asks).draw(TRITON)
    assert found == Rows(logits, asks, CPU).draw(ORACLE)
    return found
