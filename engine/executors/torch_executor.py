"""Steps computed by a decoder in torch, on any device."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.cache.kv_cache import KVCache
from engine.executors.executor import Scores
from engine.executors.inputs import StepInputs
from engine.kernels.batch import AttentionBatch
from engine.models.decoder import Decoder


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

    def scores_after(
        self, inputs: StepInputs, rows: NDArray[np.int64]
    ) -> Callable[[int, int], Tensor]:
        """See `Executor`."""
        hidden = self._hidden(inputs)[self._put(rows)]
        return lambda first, count: self._decoder.logits(hidden[first : first + count])

    def score(self, inputs: StepInputs) -> Tensor:
        """See `Executor`."""
        return self._decoder.logits(self._hidden(inputs))

    def launch(self, inputs: StepInputs, *, logits: bool) -> Scores:
        """See `Executor`."""
        hidden = self._hidden(inputs)
        if not len(inputs.picked):
            return Scores(np.empty(0, dtype=np.int64), None)
        scores = self._decoder.logits(hidden[self._put(inputs.sampled_rows)])
        return Scores(scores.argmax(dim=-1).cpu().numpy(), scores)

    def _batch(self, inputs: StepInputs, positions: NDArray[np.int64]) -> AttentionBatch:
        count, total, size = inputs.num_sequences, inputs.num_tokens, inputs.block_size
        slots, contexts = inputs.slots[:count], inputs.contexts[:count]
        starts = inputs.query_start[: count + 1]
        counts = np.diff(starts)
        longest, decodes = int(contexts.max()), int((counts == 1).sum())
        blocks = inputs.tables.rows[slots[inputs.owners[:total]], positions // size]
        return AttentionBatch(
            query_start=self._put(starts),
            context_lens=self._put(contexts),
            block_tables=self._put(inputs.tables.rows[slots, : -(-longest // size)]),
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
