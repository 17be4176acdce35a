"""A decoder whose layers run in C on a CPU, made from the weights of a `Decoder`.

A layer is one call that goes through ten passes, whose work the threads claim. It makes no
tensors, and its intermediate results stay in the processor's cache. `engine.models.decoder` is its
reference.
"""

import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ctypes import CDLL, byref
from itertools import count
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Module

from engine.errors import OutOfCache
from engine.kernels.fused.weights import Float8Weight
from engine.kernels.native.cache import NativeCache, query_bytes
from engine.kernels.native.library import library
from engine.kernels.native.linear import EncodedRows
from engine.kernels.native.structs import KINDS, PASSES, Buffers, Rows, Shape, Step, Weight
from engine.kernels.native.structs import Layer as LayerStruct
from engine.kernels.native.weights import PackedWeight, pack
from engine.models.decoder import Decoder, Layer, Linear


class NativeDecoder:
    """Layers, embedding and head of one model.

    Args:
        decoder: finished and not packed. Its projections are moved out of it, one by one, so that
            memory holds little more than one copy.
        cache: where keys and values are kept.
        max_tokens: most tokens of a step.
        max_rows: most tokens of a step whose scores are wanted.
        threads: CPU threads.
        packed_at_once: layers that are laid out at the same time, by a thread each.
    """

    def __init__(
        self,
        decoder: Decoder,
        cache: NativeCache,
        max_tokens: int,
        max_rows: int,
        threads: int,
        packed_at_once: int = 1,
    ) -> None:
        native = library()
        assert native is not None, "ask whether the kernels are available first"
        self._native: CDLL = native
        self._threads = threads
        self._held: list[Tensor | PackedWeight | EncodedRows] = []
        self.cache = cache  # the layers point into it
        self._config = config = decoder.config
        self._embedding = decoder.embedding.detach()
        self._norm = self._float(decoder.norm)
        rotary = decoder.rotary
        self._shape = Shape(
            hidden=config.hidden_size,
            inner=config.intermediate_size,
            hadamard=cast(Layer, decoder.layers[0]).feed_forward.hadamard_count,
            cosines=self._keep(rotary.cosines).data_ptr(),
            sines=self._keep(rotary.sines).data_ptr(),
            eps=config.rms_norm_eps,
            scale=config.head_dim**-0.5,
        )
        self._packing_threads = max(1, threads // packed_at_once)
        with ThreadPoolExecutor(packed_at_once) as pool:
            head = pool.submit(self._pack, decoder.head)
            self._layers = list(pool.map(self._layer, decoder.layers, count()))
            self._head = head.result()
        self._seconds: NDArray[np.float64] = np.zeros(len(PASSES))
        self._buffers = self._make_buffers(max_tokens, max_rows, cache.dtype)
        self._segments = self._make_segments()
        self._argmaxes = torch.empty(threads * max_rows * 2, dtype=torch.float32)
        self._chosen: NDArray[np.int64] = np.empty(max_rows, dtype=np.int64)
        self._logits: Tensor | None = None
        self.max_rows = max_rows

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds spent in each pass so far, over all layers and steps."""
        return dict(zip(PASSES, self._seconds.tolist(), strict=True))

    def run(
        self,
        step: Step,
        picked: NDArray[np.int32],
        tokens: NDArray[np.int64],
        on_layer: Callable[[], None] | None = None,
    ) -> None:
        """Compute a step's keys and values, and what `head` needs, which stays inside.

        Args:
            step: its arrays must live until the call returns.
            picked: int32; the sequences whose last token's scores are wanted.
            tokens: int64; the places of those tokens in the step. No other token goes through more
                of the last layer than its keys and values.
            on_layer: called ahead of every layer.

        Raises:
            OutOfCache: there is no memory for attention's partial results.
        """
        self._run(step, tokens, picked, on_layer)

    def run_rows(
        self,
        step: Step,
        tokens: NDArray[np.int64],
        on_layer: Callable[[], None] | None = None,
    ) -> None:
        """As `run`, where the scores after any tokens of any sequences are wanted.

        Args:
            step, on_layer: as in `run`.
            tokens: int64; the places of those tokens in the step, ascending.
        """
        self._run(step, tokens, None, on_layer)

    def _run(
        self,
        step: Step,
        tokens: NDArray[np.int64],
        picked: NDArray[np.int32] | None,
        on_layer: Callable[[], None] | None,
    ) -> None:
        native, shape, buffers = self._native, byref(self._shape), byref(self._buffers)
        there, threads, table = byref(step), self._threads, self._embedding
        for segments in set(self._segments[:-1]):
            self._cut(segments, step, None)
        native.decoder_embed(shape, table.data_ptr(), KINDS[table.dtype], there, buffers)
        for layer, segments in zip(self._layers[:-1], self._segments[:-1], strict=True):
            if on_layer is not None:
                on_layer()
            native.decoder_layer(shape, layer, there, segments, buffers, None, 0, threads)
        self._cut(self._segments[-1], step, picked)
        last, places = self._layers[-1], tokens.ctypes.data
        native.decoder_layer(
            shape, last, there, self._segments[-1], buffers, places, len(tokens), threads
        )

    def _cut(self, segments: int, step: Step, picked: NDArray[np.int32] | None) -> None:
        """Cut a step into segments of attention."""
        only = None if picked is None else picked.ctypes.data
        count = 0 if picked is None else len(picked)
        layer = byref(self._layers[0].kv)
        if self._native.segments_build(segments, byref(step), layer, only, count, 1, self._threads):
            raise OutOfCache("No memory for the partial results of attention.")

    def head(
        self, count: int, *, first: int = 0, logits: bool
    ) -> tuple[NDArray[np.int64], Tensor | None]:
        """Scores of the vocabulary after ``count`` of the picked tokens, from the ``first`` on.

        Args:
            count: at most `max_rows`.
            first: the first one's place among them.
            logits: whether the scores themselves are wanted.

        Returns:
            The argmax of each row, int64 [count], and the scores, float32 [count, vocab] or
            ``None``. Both are overwritten by the next call.
        """
        scores = self._scores(count) if logits else None
        self._native.decoder_head(
            byref(self._shape),
            self._norm,
            byref(self._head.struct),
            byref(self._buffers),
            first,
            count,
            self._argmaxes.data_ptr(),
            self._chosen.ctypes.data,
            None if scores is None else scores.data_ptr(),
            self._threads,
        )
        return self._chosen[:count], scores

    def _scores(self, count: int) -> Tensor:
        if self._logits is None:
            self._logits = torch.empty(self.max_rows, self._config.vocab_size)
        return self._logits[:count]

    # -- building ------------------------------------------------------------------------------

    def _keep(self, tensor: Tensor) -> Tensor:
        kept = tensor.detach().contiguous()
        self._held.append(kept)
        return kept

    def _float(self, tensor: Tensor | None) -> int | None:
        return None if tensor is None else self._keep(tensor.detach().float()).data_ptr()

    def _pack(self, linear: Linear, *, gated: bool = False) -> PackedWeight:
        weight = linear.take()
        if isinstance(weight, Tensor):
            # The reference's head is float32 on a CPU, which changes no value; here only its scores
            # have to be.
            weight = weight.to(self._embedding.dtype)
        assert not isinstance(weight, Float8Weight), "no CPU is offered these"
        packed = pack(weight, linear.bias, gated=gated, threads=self._packing_threads)
        self._held.append(packed)
        return packed

    def _layer(self, module: Module, index: int) -> LayerStruct:
        layer = cast(Layer, module)
        attention, feed_forward = layer.attention, layer.feed_forward
        return LayerStruct(
            attention_norm=self._float(layer.attention_norm),
            feed_forward_norm=self._float(layer.feed_forward_norm),
            query_norm=self._float(attention.query_norm),
            key_norm=self._float(attention.key_norm),
            qkv=self._pack(attention.qkv).struct,
            output=self._pack(attention.output).struct,
            gate_up=self._pack(feed_forward.gate_up, gated=True).struct,
            down=self._pack(feed_forward.down).struct,
            kv=self.cache.layer(index),
        )

    def _make_buffers(self, tokens: int, picked: int, cache_dtype: torch.dtype) -> Buffers:
        config, first = self._config, self._layers[0]
        encoded = config.num_heads * query_bytes(config.head_dim, cache_dtype)
        widest = max(first.qkv.outputs, config.intermediate_size)
        return Buffers(
            residual=self._room(tokens, config.hidden_size, torch.float32),
            last=self._room(tokens, config.hidden_size, torch.float32),
            wide=self._room(tokens, widest, torch.float32),
            queries=self._room(tokens, encoded, torch.uint8),
            hidden=self._rows(tokens, first.qkv),
            attn_output=self._rows(tokens, first.output),
            inner=self._rows(tokens, first.down),
            final=self._rows(picked, self._head.struct),
            seconds=self._seconds.ctypes.data,
        )

    def _rows(self, tokens: int, weight: Weight) -> Rows:
        room = EncodedRows(tokens, weight)
        self._held.append(room)
        return room.struct

    def _room(self, tokens: int, width: int, dtype: torch.dtype) -> int:
        return self._keep(torch.empty(tokens, width, dtype=dtype)).data_ptr()

    def _make_segments(self) -> list[int]:
        """Where each layer's segments are kept. Layers with equal windows share, but for the last.

        The last layer has its own, as it computes fewer tokens.
        """
        windows = [self._config.window(index) or 0 for index in range(len(self._layers))]
        made = {window: self._new_segments(window) for window in sorted(set(windows[:-1]))}
        return [*(made[window] for window in windows[:-1]), self._new_segments(windows[-1])]

    def _new_segments(self, window: int) -> int:
        segments: int | None = self._native.segments_new(window)
        if segments is None:
            raise OutOfCache("No memory for the segments of a step.")
        weakref.finalize(self, self._native.segments_free, segments)
        return segments
