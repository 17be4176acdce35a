"""What changes a row of logits before a token is drawn from it, as a list of small processors.

Each is for one sequence. `make_processors` says which ones a request needs, and in what order
they are applied. A request that needs none costs nothing.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from engine.scheduler.step import Admission


class LogitsProcessor(Protocol):
    """Changes one sequence's logits, token by token."""

    @property
    def done(self) -> bool:
        """Whether it will change nothing any more, and may be dropped."""
        ...

    def apply(self, logits: Tensor) -> None:
        """Change the logits of the next token, float32 [vocab], in place."""
        ...

    def remember(self, token_id: int) -> None:
        """Take note of the token that was chosen."""
        ...


class LogitBias:
    """Adds a fixed value to some tokens' logits."""

    done = False

    def __init__(self, bias: Mapping[int, float], device: torch.device) -> None:
        self._token_ids = _indices(bias, device)
        self._values = torch.tensor(list(bias.values()), device=device)

    def apply(self, logits: Tensor) -> None:
        """See `LogitsProcessor.apply`."""
        logits[self._token_ids] += self._values

    def remember(self, token_id: int) -> None:
        """See `LogitsProcessor.remember`."""


class RepetitionPenalty:
    """Divides positive and multiplies negative logits of tokens seen in prompt or output.

    From CTRL (Keskar et al. 2019).
    """

    done = False

    def __init__(
        self,
        penalty: float,
        prompt: Iterable[int],
        output_ids: Iterable[int],
        device: torch.device,
    ) -> None:
        self._penalty = penalty
        self._device = device
        self._prompt_ids = _indices(sorted(set(prompt)), device)
        self._output_ids = set(output_ids)

    def apply(self, logits: Tensor) -> None:
        """See `LogitsProcessor.apply`."""
        output_ids = _indices(self._output_ids, self._device)
        seen = torch.unique(torch.cat((self._prompt_ids, output_ids)))
        scores = logits[seen]
        logits[seen] = torch.where(scores > 0, scores / self._penalty, scores * self._penalty)

    def remember(self, token_id: int) -> None:
        """See `LogitsProcessor.remember`."""
        self._output_ids.add(token_id)


class CountPenalty:
    """Subtracts from the logits of tokens seen in the output.

    Args:
        presence: subtracted once.
        frequency: subtracted as often as the token was seen.
    """

    done = False

    def __init__(
        self, presence: float, frequency: float, output_ids: Iterable[int], device: torch.device
    ) -> None:
        self._presence = presence
        self._frequency = frequency
        self._counts = dict(Counter(output_ids))
        self._device = device

    def apply(self, logits: Tensor) -> None:
        """See `LogitsProcessor.apply`."""
        times = torch.tensor(list(self._counts.values()), device=self._device)
        seen = _indices(self._counts, self._device)
        logits[seen] -= self._frequency * times + self._presence

    def remember(self, token_id: int) -> None:
        """See `LogitsProcessor.remember`."""
        self._counts[token_id] = self._counts.get(token_id, 0) + 1


class MinTokens:
    """Bans tokens that would end the output for as long as it is too short.

    Args:
        missing: tokens to come before one may end it.
        end_token_ids: those that would.
    """

    def __init__(self, missing: int, end_token_ids: Iterable[int], device: torch.device) -> None:
        self._missing = missing
        self._end_token_ids = _indices(end_token_ids, device)

    @property
    def done(self) -> bool:
        """See `LogitsProcessor.done`."""
        return self._missing <= 0

    def apply(self, logits: Tensor) -> None:
        """See `LogitsProcessor.apply`."""
        logits[self._end_token_ids] = -torch.inf

    def remember(self, token_id: int) -> None:
        """See `LogitsProcessor.remember`."""
        self._missing -= 1


def make_processors(
    admission: Admission, end_token_ids: Sequence[int], device: torch.device
) -> list[LogitsProcessor]:
    """The processors that a sequence's parameters ask for, in the order in which they are applied.

    Args:
        admission: the sequence; its output so far counts as seen.
        end_token_ids: the model's end-of-sequence ids.
        device: where logits live.
    """
    params, output_ids = admission.params, admission.output_ids
    processors: list[LogitsProcessor] = []
    if params.logit_bias:
        processors.append(LogitBias(params.logit_bias, device))
    if params.repetition_penalty != 1:
        processors.append(
            RepetitionPenalty(params.repetition_penalty, admission.prompt, output_ids, device)
        )
    if params.presence_penalty or params.frequency_penalty:
        processors.append(
            CountPenalty(params.presence_penalty, params.frequency_penalty, output_ids, device)
        )
    if len(output_ids) < params.min_tokens:
        ends = (*end_token_ids, *params.stop_token_ids)
        processors.append(MinTokens(params.min_tokens - len(output_ids), ends, device))
    return processors


def _indices(token_ids: Iterable[int], device: torch.device) -> Tensor:
    return torch.tensor(list(token_ids), dtype=torch.int64, device=device)
