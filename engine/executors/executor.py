"""Who computes a step: torch on any device, or the kernels in C on a CPU."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.cache.kv_cache import KVCache
from engine.executors.inputs import StepInputs
from engine.executors.native_decoder import NativeDecoder
from engine.kernels.batch import AttentionBatch
from engine.kernels.native.structs import Step
from engine.models.decoder import Decoder


class Scores(NamedTuple):
    """What a step gives for its N sampled sequences. Overwritten by the next step.

    Attributes:
        greatest: int64 [N]; the token with the greatest logit.
        logits: float32 [N, vocab], or ``None`` where they were not wanted.
    """

    greatest: NDArray[np.int64]
    logits: Tensor | None


class Executor(Protocol):
    """A model with its KV cache."""

    def execute(self, inputs: StepInputs, *, logits: bool) -> Scores:
        """Compute a step's keys and values, and the scores of its sampled sequences."""

    def score(self, inputs: StepInputs) -> Tensor:
        """Compute a step, and the scores after every token of it: float32 [T, vocab], a new tensor.

        For measuring a model; nothing is sampled.
        """

    def on_layer(self, call: Callable[[], None]) -> None:
        """Have ``call`` called ahead of every layer of every step, where a step may be long."""


class TorchExecutor:
    """A decoder in torch: the path of devices without kernels of their own, and the reference."""

    def __init__(self, decoder: Decoder, cache: KVCache) -> None:
        self._decoder = decoder
        self._cache = cache
        self._device = decoder.embedding.device

    def on_layer(self, call: Callable[[], None]) -> None:
        """See `Executor`. On a GPU no step is long, and what is called does not wait for it."""
        if self._device.type == "cpu":
            for layer in self._decoder.layers:
                layer.register_forward_pre_hook(lambda module, arguments: call())

    def _hidden(self, inputs: StepInputs) -> Tensor:
        total = inputs.num_tokens
        positions = inputs.positions[:total].astype(np.int64)
        hidden: Tensor = self._decoder(
            self._put(inputs.token_ids[:total].astype(np.int64)),
            self._put(positions),
            self._batch(inputs, positions),
            self._cache,
        )
        return hidden

    def score(self, inputs: StepInputs) -> Tensor:
        """See `Executor`."""
        return self._decoder.logits(self._hidden(inputs))

    def execute(self, inputs: StepInputs, *, logits: bool) -> Scores:
        """See `Executor`."""
        hidden = self._hidden(inputs)
        if not inputs.sampled:
            return Scores(np.empty(0, dtype=np.int64), None)
        scores = self._decoder.logits(hidden[self._put(inputs.sampled_rows)])
        return Scores(scores.argmax(dim=-1).cpu().numpy(), scores)

    def _batch(self, inputs: StepInputs, positions: NDArray[np.int64]) -> AttentionBatch:
        count, total, size = inputs.num_sequences, inputs.num_tokens, inputs.block_size
        slots, contexts = inputs.slots[:count], inputs.contexts[:count]
        starts = inputs.query_start[: count + 1]
        counts = np.diff(starts)
        longest, decodes = int(contexts.max()), int((counts == 1).sum())
        blocks = inputs.tables[slots[inputs.owners[:total]], positions // size]
        return AttentionBatch(
            query_start=self._put(starts),
            context_lens=self._put(contexts),
            block_tables=self._put(inputs.tables[slots, : -(-longest // size)]),
            slot_mapping=self._put(blocks.astype(np.int64) * size + positions % size),
            num_decodes=decodes,
            max_query=int(counts.max()),
            max_context=longest,
            block_size=size,
            max_decode_context=int(contexts[:decodes].max(initial=0)),
        )

    def _put(self, values: NDArray[np.generic]) -> Tensor:
        """On the device. A copy, as the arrays are filled anew while a device may still read."""
        return torch.from_numpy(values.copy()).to(self._device, non_blocking=True)


class NativeExecutor:
    """A decoder in C.

    Args:
        decoder: public, for those who measure its passes.
        inputs: those of every step: their addresses are taken once.
    """

    def __init__(self, decoder: NativeDecoder, inputs: StepInputs) -> None:
        self.decoder = decoder
        self._on_layer: Callable[[], None] | None = None
        self._step = Step(
            stride=inputs.tables.shape[1],
            query_start=inputs.query_start.ctypes.data,
            contexts=inputs.contexts.ctypes.data,
            slots=inputs.slots.ctypes.data,
            tables=inputs.tables.ctypes.data,
            token_ids=inputs.token_ids.ctypes.data,
            positions=inputs.positions.ctypes.data,
            owners=inputs.owners.ctypes.data,
        )

    def on_layer(self, call: Callable[[], None]) -> None:
        """See `Executor`."""
        self._on_layer = call

    def score(self, inputs: StepInputs) -> Tensor:
        """See `Executor`."""
        self.decoder.run_all(self._filled(inputs))
        parts = []
        for first in range(0, inputs.num_tokens, self.decoder.max_rows):
            count = min(self.decoder.max_rows, inputs.num_tokens - first)
            _, scores = self.decoder.head(count, first=first, logits=True)
            assert scores is not None
            parts.append(scores.clone())
        return torch.cat(parts)

    def execute(self, inputs: StepInputs, *, logits: bool) -> Scores:
        """See `Executor`."""
        picked = np.array(inputs.sampled, dtype=np.int32)
        self.decoder.run(self._filled(inputs), picked, inputs.sampled_rows, self._on_layer)
        if not inputs.sampled:
            return Scores(np.empty(0, dtype=np.int64), None)
        return Scores(*self.decoder.head(len(picked), logits=logits))

    def _filled(self, inputs: StepInputs) -> Step:
        self._step.tokens, self._step.sequences = inputs.num_tokens, inputs.num_sequences
        return self._step
