"""The launches of sampling that models of known vocabularies make, to be compiled ahead."""

import torch

from engine.kernels.fused.sampling import (
    REPORT_WIDTH,
    Column,
    SampledRows,
    SamplerTensors,
    Workspace,
)
from engine.kernels.triton.launch import Launch, collect
from engine.kernels.triton.sampling.sampling import TritonSampling

META = torch.device("meta")
ROWS, WIDTH = 64, 16  # no kernel depends on them
VOCABULARIES = {"Llama-3.1-8B": 128_256, "Qwen3-0.6B": 151_936, "SmolLM2-135M": 49_152}


def shipped_launches(capability: tuple[int, int]) -> list[Launch]:
    """Every distinct launch of sampling, from bfloat16 and float32, on the meta device.

    Args:
        capability: of the device; all of them run the same kernels.
    """
    with collect() as launches:
        for vocab in VOCABULARIES.values():
            for dtype in (torch.bfloat16, torch.float32):
                _draws(vocab, dtype)
    return launches


def _draws(vocab: int, dtype: torch.dtype) -> None:
    def ints(*size: int) -> torch.Tensor:
        return torch.empty(size, dtype=torch.int32, device=META)

    logits = torch.empty(ROWS, vocab, dtype=dtype, device=META)
    rows = SampledRows(logits, ints(ROWS), ints(ROWS), ints(ROWS))
    table = ints(ROWS, len(Column))
    state = SamplerTensors(table, ints(ROWS), ints(4, vocab), ints(4, 2 * WIDTH))
    room, kernels = Workspace(ROWS, vocab, META), TritonSampling()
    for adjusted in (False, True):
        for filtered in (False, True):
            kernels.draw(rows, state, room, adjusted=adjusted, filtered=filtered)
    kernels.report(rows, state, room, ints(ROWS, REPORT_WIDTH))
