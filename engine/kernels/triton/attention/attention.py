"""Attention of a step over the paged cache: which kernels are launched, and their workspace."""

from typing import Any

import torch
from torch import Tensor

from engine.kernels.fused.task_maker import SPLIT_KEYS
from engine.kernels.fused.tasks import TILE_FIELDS, AttentionTasks, TaskArrays
from engine.kernels.fused.tensors import LayerCache, StepTensors
from engine.kernels.triton.attention.decode import decode_kernel
from engine.kernels.triton.attention.pieces import merge_kernel
from engine.kernels.triton.attention.prefill import prefill_kernel
from engine.kernels.triton.attention.segments import segment_kernel
from engine.kernels.triton.attention.tiles import (
    Capability,
    Phase,
    TileShape,
    power_of_two,
    tile_config,
)
from engine.kernels.triton.launch import INTERPRETED, launch

FORMATS = {torch.int8: "int8", torch.float8_e4m3fn: "fp8"}
MERGED_AT_ONCE = 16


class TritonAttention:
    """See `FusedKernels.attention`.

    Attributes:
        workspace_bytes: of its pieces.
    """

    def __init__(
        self,
        heads: int,
        kv_heads: int,
        head_dim: int,
        max_pieces: int,
        capability: Capability,
        device: torch.device,
        product: int = 0,
    ) -> None:
        """
        Args:
            heads, kv_heads, head_dim: of the model.
            max_pieces: as in `TaskMaker`.
            capability: of the device that kernels are compiled for.
            device: where the workspace is.
            product: with a cache of 8 bits, 0 widens its numbers, 1 computes scores in 8 bits, 2
                the sums of values too.
        """
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, head_dim
        self.capability = capability
        self.product = product
        pieces = max(max_pieces, 1)
        self._values = torch.empty(pieces, heads, head_dim, dtype=torch.float32, device=device)
        self._lse = torch.empty(pieces, heads, dtype=torch.float32, device=device)
        self.workspace_bytes = self._values.nbytes + self._lse.nbytes

    def attention(
        self,
        queries: Tensor,
        cache: LayerCache,
        step: StepTensors,
        tasks: AttentionTasks,
        scale: float,
        sliding_window: int | None,
        out: Tensor,
    ) -> None:
        """See `FusedKernels.attention`; ``tasks`` with their arrays.

        Raises:
            ValueError: tasks without arrays, or made for a narrower window.
        """
        arrays = tasks.arrays
        if arrays is None:
            raise ValueError("The tasks have no arrays.")
        if sliding_window is not None and sliding_window > (tasks.window or 0):
            raise ValueError(f"The tasks were not made for a window of {sliding_window} keys.")
        shares = tasks.segment_tiles > 0 and sliding_window is None
        if shares:
            self._segments(queries, cache, step, tasks, arrays, scale)
        if tasks.prefill_tiles:
            launch(
                prefill_kernel,
                (tasks.prefill_tiles * self.kv_heads,),
                queries,
                *_numbers(cache),
                out,
                self._values,
                self._lse,
                step.query_start,
                step.contexts,
                step.slots,
                step.block_tables,
                arrays.shared,
                arrays.pieces,
                arrays.prefill_tiles,
                scale,
                sliding_window or 0,
                step.block_tables.shape[1],
                **self._constants("prefill", tasks.prefill_rows, queries, cache, shares),
                SHARED=shares,
                WINDOW=sliding_window is not None,
            )
        if tasks.num_decodes:
            self._decode(queries, cache, step, tasks, arrays, scale, sliding_window, out, shares)

    def _segments(
        self,
        queries: Tensor,
        cache: LayerCache,
        step: StepTensors,
        tasks: AttentionTasks,
        arrays: TaskArrays,
        scale: float,
    ) -> None:
        launch(
            segment_kernel,
            (tasks.segment_tiles * self.kv_heads,),
            queries,
            *_numbers(cache),
            self._values,
            self._lse,
            step.block_tables,
            arrays.segment_tiles,
            arrays.members,
            scale,
            step.block_tables.shape[1],
            **self._constants("segment", tasks.segment_rows, queries, cache),
            FIELDS=TILE_FIELDS,
        )

    def _decode(
        self,
        queries: Tensor,
        cache: LayerCache,
        step: StepTensors,
        tasks: AttentionTasks,
        arrays: TaskArrays,
        scale: float,
        window: int | None,
        out: Tensor,
        shares: bool,
    ) -> None:
        split = tasks.splits > 1
        split_keys = arrays.split_keys if window is None else arrays.window_split_keys
        rows = power_of_two(self.heads // self.kv_heads)
        launch(
            decode_kernel,
            (tasks.num_decodes * self.kv_heads, tasks.splits),
            queries,
            *_numbers(cache),
            out,
            self._values,
            self._lse,
            step.query_start,
            step.contexts,
            step.slots,
            step.block_tables,
            arrays.shared,
            split_keys,
            arrays.pieces,
            scale,
            window or 0,
            step.block_tables.shape[1],
            tasks.splits,
            tasks.own_pieces,
            **self._constants("decode", rows, queries, cache),
            SPLIT_KEYS=SPLIT_KEYS,
            SPLIT=split,
            SHARED=shares,
            WINDOW=window is not None,
        )
        if split:
            launch(
                merge_kernel,
                (tasks.num_decodes * self.heads,),
                out,
                self._values,
                self._lse,
                step.query_start,
                step.contexts,
                arrays.shared,
                split_keys,
                arrays.pieces,
                tasks.splits,
                tasks.own_pieces,
                window or 0,
                HEADS=self.heads,
                HEAD_DIM=self.head_dim,
                BLOCK_D=power_of_two(self.head_dim),
                PIECES=MERGED_AT_ONCE,
                SPLIT_KEYS=SPLIT_KEYS,
                WINDOW=window is not None,
                SHARED=shares,
                num_warps=4,
            )

    def _constants(
        self, phase: Phase, rows: int, queries: Tensor, cache: LayerCache, folds: bool = False
    ) -> dict[str, Any]:
        """What a kernel is compiled for."""
        cache_format = FORMATS.get(cache.keys.dtype, "none")
        block_size = cache.keys.shape[1]
        group = self.heads // self.kv_heads
        shape = TileShape(group, self.head_dim, block_size, queries.itemsize, cache_format, folds)
        config = tile_config(self.capability, phase, rows, shape)
        stride_block, stride_token, stride_head, _ = cache.keys.stride()
        return {
            "HEADS": self.heads,
            "KV_HEADS": self.kv_heads,
            "HEAD_DIM": self.head_dim,
            "BLOCK_D": max(power_of_two(self.head_dim), 16),
            "BLOCK_SIZE": block_size,
            "STRIDE_BLOCK": stride_block,
            "STRIDE_TOKEN": stride_token,
            "STRIDE_HEAD": stride_head,
            "ROWS": config.rows,
            "BLOCK_N": config.keys,
            "STAGES": config.stages,
            "FORMAT": cache_format,
            "PRODUCT": 0 if cache_format == "none" else self.product,
            "PTX": not INTERPRETED,
            "num_warps": config.warps,
        }


def _numbers(cache: LayerCache) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Keys, values and their scales as kernels take them: fp8 as bytes, and tensors for scales that
    are not there."""
    keys, values = cache.keys, cache.values
    if cache.key_scales is None or cache.value_scales is None:
        return keys, values, keys, values
    if keys.dtype == torch.float8_e4m3fn:
        keys, values = keys.view(torch.uint8), values.view(torch.uint8)
    return keys, values, cache.key_scales, cache.value_scales
