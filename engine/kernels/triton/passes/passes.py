"""The passes between the products, as launches of Triton's kernels."""

import math

import triton
from torch import Tensor

from engine.kernels.fused.kernels import HeadNorms
from engine.kernels.fused.tensors import Activations, LayerCache, StepTensors
from engine.kernels.hadamard import MAX_COUNT, STRIDE
from engine.kernels.rope import RotaryTable
from engine.kernels.triton.launch import launch
from engine.kernels.triton.passes import norm, rounding
from engine.kernels.triton.passes.rotary import rotate_and_store

# Numbers of a row that a program has where rows need not stay whole; transforms divide them.
_CHUNK = 2 * STRIDE * MAX_COUNT
_LONGEST = 16384  # numbers that a program keeps in its registers
_MOST_HEADS = 8  # that share a program


class TritonPasses:
    """The first passes of `engine.kernels.fused.kernels.FusedKernels`. Tensors are contiguous."""

    def embed(
        self, token_ids: Tensor, last_tokens: Tensor, table: Tensor, residual: Tensor
    ) -> None:
        """See `FusedKernels.embed`."""
        tokens, width = residual.shape
        grid = (tokens, triton.cdiv(width, _CHUNK))
        arguments = (token_ids, last_tokens, table, residual)
        launch(norm.embed, grid, *arguments, WIDTH=width, BLOCK=_CHUNK, num_warps=4)

    def add_norm(
        self, update: Tensor | None, residual: Tensor, weight: Tensor, eps: float, out: Activations
    ) -> None:
        """See `FusedKernels.add_norm`."""
        tokens, width = residual.shape
        block = triton.next_power_of_2(width)
        launch(
            norm.add_norm,
            (tokens,),
            *(update, residual, weight, eps, out.values, out.scales),
            WIDTH=width,
            BLOCK=block,
            num_warps=_warps(block),
        )

    def rotate_and_store(
        self,
        qkv: Tensor,
        norms: HeadNorms | None,
        rotary: RotaryTable,
        step: StepTensors,
        cache: LayerCache,
        queries: Tensor,
    ) -> None:
        """See `FusedKernels.rotate_and_store`."""
        tokens, heads, dim = queries.shape
        kv_heads = cache.keys.shape[2]
        shared = math.gcd(heads, kv_heads)
        group = max(n for n in range(1, _MOST_HEADS + 1) if shared % n == 0)
        launch(
            rotate_and_store,
            (tokens, (heads + 2 * kv_heads) // group),
            qkv,
            *((None, None, 0.0) if norms is None else (norms.query, norms.key, norms.eps)),
            *(rotary.cosines, rotary.sines),
            *(step.positions, step.cache_slots),
            *(cache.keys, cache.values, cache.key_scales, cache.value_scales),
            queries,
            HEADS=heads,
            KV_HEADS=kv_heads,
            HALF=dim // 2,
            GROUP=group,
            BLOCK_HEADS=triton.next_power_of_2(group),
            BLOCK=triton.next_power_of_2(dim // 2),
            num_warps=4 if group * dim >= 512 else 2,
        )

    def gate(self, gate_up: Tensor, out: Activations, hadamard_count: int = 1) -> None:
        """See `FusedKernels.gate`.

        Raises:
            ValueError: the inner width does not divide into runs of ``16 · count``.
        """
        width = out.values.shape[1]
        if hadamard_count > 1 and width % (STRIDE * hadamard_count):
            raise ValueError(f"{width} columns are no runs of {STRIDE * hadamard_count}.")
        _convert(gate_up, out, True, hadamard_count.bit_length() - 1)

    def round_rows(self, x: Tensor, out: Activations) -> None:
        """See `FusedKernels.round_rows`."""
        _convert(x, out, False, 0)


def _convert(x: Tensor, out: Activations, gated: bool, levels: int) -> None:
    tokens, width = out.values.shape
    shape = {"WIDTH": width, "GATED": gated, "LEVELS": levels}
    if out.scales is None:
        grid: tuple[int, ...] = (tokens, triton.cdiv(width, _CHUNK))
        launch(rounding.convert_rows, grid, x, out.values, **shape, BLOCK=_CHUNK, num_warps=4)
        return
    block = triton.next_power_of_2(width)
    if block > _LONGEST:
        block = _LONGEST // 4
    shape["BLOCK"] = block
    arguments = (x, out.values, out.scales)
    launch(rounding.round_rows, (tokens,), *arguments, **shape, num_warps=_warps(block))


def _warps(block: int) -> int:
    """Warps of a program that keeps a whole row: 4, more where a thread's share grows large."""
    return min(max(4, block // 1024), 16)
