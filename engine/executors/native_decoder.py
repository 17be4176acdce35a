"""A decoder whose layers run in C on a CPU.

A layer is one call that goes through ten passes, whose work the threads claim. It makes no
tensors, and its intermediate results stay in the processor's cache. `engine.models.decoder` is its
reference.
"""

import weakref
from collections.abc import Callable
from ctypes import CDLL, byref

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.errors import OutOfCache
from engine.executors.native_weights import NativeWeights
from engine.kernels.native.cache import NativeCache, query_bytes
from engine.kernels.native.library import library
from engine.kernels.native.linear import EncodedRows
from engine.kernels.native.structs import KINDS, PASSES, Buffers, Rows, Shape, Step, Weight
from engine.kernels.native.structs import Layer as LayerStruct


class NativeDecoder:
    """Layers, embedding and head of one model.

    Args:
        weights: what they read; held as long as this is.
        cache: where keys and values are kept.
        max_tokens: most tokens of a step.
        max_rows: most tokens of a step whose scores are wanted.
        threads: CPU threads.
    """

    def __init__(
        self,
        weights: NativeWeights,
        cache: NativeCache,
        max_tokens: int,
        max_rows: int,
        threads: int,
    ) -> None:
        native = library()
        assert native is not None, "ask whether the kernels are available first"
        self._native: CDLL = native
        self._threads = threads
        self._held: list[Tensor | EncodedRows] = []
        self.weights = weights
        self.cache = cache  # the layers point into it
        self._config = config = weights.config
        self._norm = weights.norms["norm"].data_ptr()
        self._shape = Shape(
            hidden=config.hidden_size,
            inner=config.intermediate_size,
            hadamard=weights.hadamard_count,
            cosines=weights.rotary.cosines.data_ptr(),
            sines=weights.rotary.sines.data_ptr(),
            eps=config.rms_norm_eps,
            scale=config.head_dim**-0.5,
        )
        self._layers = [self._layer(index) for index in range(config.num_layers)]
        self._head = weights.projections["head"].struct
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
        there, threads, table = byref(step), self._threads, self.weights.embedding
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
            byref(self._head),
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

    def _layer(self, index: int) -> LayerStruct:
        at, norms, projections = f"layers.{index}", self.weights.norms, self.weights.projections

        def norm(name: str) -> int | None:
            found = norms.get(f"{at}.{name}")
            return None if found is None else found.data_ptr()

        return LayerStruct(
            attention_norm=norm("attention_norm"),
            feed_forward_norm=norm("feed_forward_norm"),
            query_norm=norm("attention.query_norm"),
            key_norm=norm("attention.key_norm"),
            qkv=projections[f"{at}.attention.qkv"].struct,
            output=projections[f"{at}.attention.output"].struct,
            gate_up=projections[f"{at}.feed_forward.gate_up"].struct,
            down=projections[f"{at}.feed_forward.down"].struct,
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
            final=self._rows(picked, self._head),
            seconds=self._seconds.ctypes.data,
        )

    def _rows(self, tokens: int, weight: Weight) -> Rows:
        room = EncodedRows(tokens, weight)
        self._held.append(room)
        return room.struct

    def _room(self, tokens: int, width: int, dtype: torch.dtype) -> int:
        room = torch.empty(tokens, width, dtype=dtype)
        self._held.append(room)
        return room.data_ptr()

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
