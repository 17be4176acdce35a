"""Steps computed by a decoder in C, on a CPU."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.executors.executor import Scores
from engine.executors.inputs import StepInputs
from engine.executors.native_decoder import NativeDecoder
from engine.kernels.native.structs import Step


class NativeExecutor:
    """A decoder in C.

    Args:
        decoder: public, for those who measure its passes.
    """

    def __init__(self, decoder: NativeDecoder) -> None:
        self.decoder = decoder
        self._on_layer: Callable[[], None] | None = None
        self._steps: dict[StepInputs, Step] = {}  # their arrays' addresses, taken once

    def on_layer(self, call: Callable[[], None]) -> None:
        """See `Executor`."""
        self._on_layer = call

    def scores_after(
        self, inputs: StepInputs, rows: NDArray[np.int64]
    ) -> Callable[[int, int], Tensor]:
        """See `Executor`."""
        self.decoder.run_rows(self._filled(inputs), rows, self._on_layer)

        def read(first: int, count: int) -> Tensor:
            _, scores = self.decoder.head(count, first=first, logits=True)
            assert scores is not None
            return scores

        return read

    def score(self, inputs: StepInputs) -> Tensor:
        """See `Executor`."""
        total, most = inputs.num_tokens, self.decoder.max_rows
        read = self.scores_after(inputs, np.arange(total))
        return torch.cat(
            [read(first, min(most, total - first)).clone() for first in range(0, total, most)]
        )

    def launch(self, inputs: StepInputs, *, logits: bool) -> Scores:
        """See `Executor`."""
        picked = inputs.picked
        self.decoder.run(self._filled(inputs), picked, inputs.sampled_rows, self._on_layer)
        if not len(picked):
            return Scores(np.empty(0, dtype=np.int64), None)
        return Scores(*self.decoder.head(len(picked), logits=logits))

    def _filled(self, inputs: StepInputs) -> Step:
        step = self._steps.get(inputs)
        if step is None:
            step = self._steps[inputs] = _step(inputs)
        step.tokens, step.sequences = inputs.num_tokens, inputs.num_sequences
        return step


def _step(inputs: StepInputs) -> Step:
    tables = inputs.tables.rows
    return Step(
        stride=tables.shape[1],
        query_start=inputs.query_start.ctypes.data,
        contexts=inputs.contexts.ctypes.data,
        slots=inputs.slots.ctypes.data,
        tables=tables.ctypes.data,
        token_ids=inputs.token_ids.ctypes.data,
        positions=inputs.positions.ctypes.data,
        owners=inputs.owners.ctypes.data,
    )
