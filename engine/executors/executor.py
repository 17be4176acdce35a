"""Who computes a step: torch on any device, or the kernels in C on a CPU."""

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from engine.executors.inputs import StepInputs

Result = TypeVar("Result", covariant=True)


class Pending(Protocol[Result]):
    """What was launched and may still be under way."""

    def collect(self) -> Result:
        """Wait for its end, and give what came of it. To be called once, oldest launch first."""
        ...


class Scores(NamedTuple):
    """What a step gives for its N sampled sequences. Overwritten by the next step.

    Attributes:
        argmax: int64 [N]; the token with the greatest logit.
        logits: float32 [N, vocab], or ``None`` where they were not wanted.
    """

    argmax: NDArray[np.int64]
    logits: Tensor | None

    def collect(self) -> "Scores":
        """See `Pending`: an executor that computes in `launch` returns its scores as they are."""
        return self


class Executor(Protocol):
    """A model with its KV cache."""

    def launch(self, inputs: StepInputs, *, logits: bool) -> Pending[Scores]:
        """Begin to compute a step's keys and values, and the scores of its sampled sequences.

        On a CPU all is done when this returns.

        Args:
            inputs: not filled anew before the step is collected. Their block tables may be: an
                executor that computes later copies what it needs of them.
            logits: whether the logits are wanted, besides their argmax.
        """
        ...

    def scores_after(
        self, inputs: StepInputs, rows: NDArray[np.int64]
    ) -> Callable[[int, int], Tensor]:
        """Compute a step, and give the scores after some of its tokens, a slice at a time.

        Args:
            inputs: the step.
            rows: int64 [R]; the tokens' places in it, ascending.

        Returns:
            (first, count) → float32 [count, vocab]: after ``rows[first : first + count]``. The
            count is at most the slots; the tensor is overwritten by the next call.
        """
        ...

    def score(self, inputs: StepInputs) -> Tensor:
        """Compute a step, and the scores after every token of it: float32 [T, vocab], a new tensor.

        For measuring a model; nothing is sampled.
        """
        ...

    def on_layer(self, call: Callable[[], None]) -> None:
        """Have ``call`` called ahead of every layer of every step, where a step may be long."""
        ...
