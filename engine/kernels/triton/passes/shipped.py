"""The launches of the passes that models of known shapes make, to be compiled ahead."""

from typing import NamedTuple

import torch

from engine.kernels.fused.kernels import HeadNorms, activations
from engine.kernels.fused.tensors import Activations, LayerCache, StepTensors
from engine.kernels.hadamard import hadamard_count
from engine.kernels.rope import RotaryTable
from engine.kernels.triton.launch import Launch, collect
from engine.kernels.triton.passes.passes import TritonPasses

META = torch.device("meta")
TOKENS, BLOCKS, BLOCK_SIZE = 64, 16, 16  # no kernel depends on them


class Shape(NamedTuple):
    """What the passes of a decoder depend on."""

    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    head_norms: bool


SHAPES = {
    "Llama-3.1-8B": Shape(4096, 14336, 32, 8, 128, False),
    "Qwen3-0.6B": Shape(1024, 3072, 16, 8, 128, True),
    "SmolLM2-135M": Shape(576, 1536, 9, 3, 64, False),
}


def shipped_launches(capability: tuple[int, int]) -> list[Launch]:
    """Every distinct launch of the passes, in bfloat16, on tensors of the meta device.

    Args:
        capability: of the device; fp8 is there from (8, 9) on.
    """
    eight_bits = [torch.int8] if capability < (8, 9) else [torch.int8, torch.float8_e4m3fn]
    with collect() as launches:
        for shape in SHAPES.values():
            for dtype in (torch.bfloat16, *eight_bits):
                _layer(shape, dtype)
    return launches


def _layer(shape: Shape, rounded: torch.dtype) -> None:
    """Launch what a layer whose activations and cache are rounded to a dtype launches."""
    kernels, dtype = TritonPasses(), torch.bfloat16

    def empty(*size: int, of: torch.dtype = dtype) -> torch.Tensor:
        return torch.empty(size, dtype=of, device=META)

    def out(width: int) -> Activations:
        return activations(TOKENS, width, rounded, META)

    hidden, inner, heads, kv_heads, dim, normed = shape
    residual, weight = empty(TOKENS, hidden, of=torch.float32), empty(hidden)
    if rounded == dtype:
        index = empty(TOKENS, of=torch.int32)
        kernels.embed(index, index, empty(TOKENS, hidden), residual)
    else:
        kernels.round_rows(empty(TOKENS, heads * dim), out(heads * dim))
    for update in (None, empty(TOKENS, hidden)):
        kernels.add_norm(update, residual, weight, 1e-5, out(hidden))
    count = hadamard_count(inner) if rounded == torch.int8 else 1
    kernels.gate(empty(TOKENS, 2 * inner), out(inner), count)
    kernels.rotate_and_store(
        empty(TOKENS, (heads + 2 * kv_heads) * dim),
        HeadNorms(empty(dim), empty(dim), 1e-6) if normed else None,
        RotaryTable(
            empty(TOKENS, dim // 2, of=torch.float32),
            empty(TOKENS, dim // 2, of=torch.float32),
            empty(dim // 2, of=torch.float32),
        ),
        StepTensors(*(empty(TOKENS, of=torch.int32) for _ in range(7))),
        _cache(kv_heads, dim, rounded),
        empty(TOKENS, heads, dim),
    )


def _cache(kv_heads: int, dim: int, dtype: torch.dtype) -> LayerCache:
    size = (BLOCKS, BLOCK_SIZE, kv_heads)
    keys = torch.empty(*size, dim, dtype=dtype, device=META)
    if dtype.itemsize > 1:
        return LayerCache(keys, keys)
    scales = torch.empty(size, device=META)
    return LayerCache(keys, keys, scales, scales)
