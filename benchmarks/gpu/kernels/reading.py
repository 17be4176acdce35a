"""A kernel that reads everything and writes next to nothing: what a pass that reads is held to."""

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels.triton.launch import launch

_BLOCK, _STEPS = 4096, 8


@triton.jit
def read_sums(x, out, BLOCK: tl.constexpr, STEPS: tl.constexpr):
    """out[i] = the sum of the i-th STEPS · BLOCK numbers of x. Grid: (len(out),)."""
    start = tl.program_id(0).to(tl.int64) * BLOCK * STEPS + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for step in tl.static_range(STEPS):
        total += tl.load(x + start + step * BLOCK)
    tl.store(out + tl.program_id(0), tl.sum(total, 0))


def reader(x: Tensor) -> Callable[[], None]:
    """What reads a float32 tensor of a multiple of 32,768 numbers."""
    programs = x.numel() // (_BLOCK * _STEPS)
    out = torch.empty(programs, dtype=torch.float32, device=x.device)
    return lambda: launch(read_sums, (programs,), x, out, BLOCK=_BLOCK, STEPS=_STEPS, num_warps=8)
