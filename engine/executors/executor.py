"""Who computes a step: torch on any device, or the kernels in C on a CPU."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from engine.executors.inputs import StepInputs


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
