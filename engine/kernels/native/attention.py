"""Attention over the paged cache in C, by itself; see attention.h."""

import math
import weakref
from ctypes import byref

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.errors import OutOfCache
from engine.kernels.expect import expect
from engine.kernels.native.cache import NativeCache, query_bytes
from engine.kernels.native.library import library
from engine.kernels.native.structs import Step

Ints = NDArray[np.int32]


class PagedAttention:
    """softmax(scale · q kᵀ) v of steps of sequences, causal, each over its own keys.

    Args:
        cache: where keys and values are kept; its first layer is used.
        scale: usually ``head_dim ** -0.5``.
        window: keys a query sees, its own included; ``None`` is all before it.
        threads: CPU threads; ``None`` is torch's number.
        share: let sequences with equal first blocks read them together.
    """

    def __init__(
        self,
        cache: NativeCache,
        scale: float,
        window: int | None = None,
        *,
        threads: int | None = None,
        share: bool = True,
    ) -> None:
        native = library()
        assert native is not None, "ask whether the kernels are available first"
        self._native, self._cache = native, cache
        self._layer = cache.layer(0)
        self._scale = scale
        self.window = window
        self._threads, self._share = threads or torch.get_num_threads(), share
        self._segments = native.segments_new(window or 0)
        if self._segments is None:
            raise OutOfCache("No memory for the segments of a step.")
        weakref.finalize(self, native.segments_free, self._segments)

    def __call__(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        counts: Ints,
        contexts: Ints,
        tables: Ints,
    ) -> Tensor:
        """Store a step's keys and values, and let its queries see all of their sequences' keys.

        Args:
            queries: float32 [T, heads, head_dim], contiguous; the sequences' tokens end to end.
            keys, values: float32 [T, kv_heads, head_dim], contiguous; what is not finite becomes 0.
            counts: int32 [S]; tokens of each sequence in this step.
            contexts: int32 [S]; keys each sequence sees, this step's included.
            tables: int32 [S, blocks]; the cache blocks of each sequence, contiguous.

        Returns:
            float32 [T, heads, head_dim].

        Raises:
            ValueError: a shape or dtype is wrong.
            OutOfCache: there is no memory for partial results.
        """
        total, layer = int(counts.sum()), self._layer
        expect("queries", queries, (total, layer.heads, layer.width), torch.float32)
        expect("keys", keys, (total, layer.kv_heads, layer.width), torch.float32)
        expect("values", values, tuple(keys.shape), torch.float32)
        if not (queries.is_contiguous() and keys.is_contiguous() and values.is_contiguous()):
            raise ValueError("queries, keys and values must be contiguous.")
        starts = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
        owners = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        positions = (np.arange(total) + (contexts - starts[1:])[owners]).astype(np.int32)
        slots = np.arange(len(counts), dtype=np.int32)
        step = Step(
            tokens=total,
            sequences=len(counts),
            stride=tables.shape[1],
            query_start=starts.ctypes.data,
            contexts=contexts.ctypes.data,
            slots=slots.ctypes.data,
            tables=tables.ctypes.data,
            positions=positions.ctypes.data,
            owners=owners.ctypes.data,
        )
        if self._native.segments_build(
            self._segments, byref(step), byref(layer), None, 0, int(self._share), self._threads
        ):
            raise OutOfCache("No memory for the partial results of attention.")
        scaled = queries * (self._scale * math.log2(math.e))
        encoded = torch.empty(
            total, layer.heads, query_bytes(layer.width, self._cache.dtype), dtype=torch.uint8
        )
        out = torch.empty_like(queries)
        self._native.attention(
            byref(step),
            byref(layer),
            self._segments,
            *(each.data_ptr() for each in (scaled, keys, values, encoded, out)),
            self._threads,
        )
        return out
