"""What the scheduler asks of the runner: one flattened batch of tokens."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.params import SamplingParams

Ints = NDArray[np.int64]

UNKNOWN_TOKEN = -1
"""Stands in `Work.token_ids` for a token that an earlier step, still in flight, samples.

It is the token that the step launched last with ``sample`` set for the slot samples there. The
executor puts it in on its device, where that token is. The engine schedules such a step only for a
runner whose ``max_in_flight`` is above 0.
"""


@dataclass(frozen=True, slots=True)
class Admission:
    """What the runner must know of a sequence that takes a slot.

    ``output_ids`` is not empty where a preempted sequence comes back.
    """

    params: SamplingParams
    index: int
    prompt: tuple[int, ...]
    output_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Scoring:
    """What a work is to tell of its prompt's log-probabilities.

    Attributes:
        targets: the tokens that follow the work's first ones in the prompt.
        top: alternatives to report for each.
    """

    targets: tuple[int, ...]
    top: int


@dataclass(frozen=True, slots=True)
class Work:
    """One sequence's share of a step.

    Attributes:
        slot: the sequence's place on the device, below ``max_num_seqs``.
        start: position of the first token.
        token_ids: the tokens whose keys and values are computed; the last one may be
            `UNKNOWN_TOKEN`.
        new_blocks: blocks appended to the slot's block table for them.
        sample: whether the last token's logits give the next token.
        admission: set where the sequence takes the slot in this step.
        scoring: set where log-probabilities of the prompt are wanted.
    """

    slot: int
    start: int
    token_ids: tuple[int, ...]
    new_blocks: tuple[int, ...]
    sample: bool
    admission: Admission | None = None
    scoring: Scoring | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Decodes:
    """D sequences that compute the last of their tokens, known or to come, and sample the next.

    Attributes:
        slots: int64 [D].
        starts: int64 [D]; the positions of the tokens.
        token_ids: int64 [D]; some may be `UNKNOWN_TOKEN`.
        grown: int64 [G]; the ones that begin a block, as ascending indices into the above.
        new_blocks: int64 [G]; those blocks.
    """

    slots: Ints
    starts: Ints
    token_ids: Ints
    grown: Ints
    new_blocks: Ints

    def __len__(self) -> int:
        """D."""
        return len(self.slots)

    def works(self) -> Iterator[Work]:
        """The same, one by one."""
        blocks = dict(zip(self.grown.tolist(), self.new_blocks.tolist(), strict=True))
        columns = (each.tolist() for each in (self.slots, self.starts, self.token_ids))
        for index, (slot, start, token_id) in enumerate(zip(*columns, strict=True)):
            new = (blocks[index],) if index in blocks else ()
            yield Work(slot, start, (token_id,), new, sample=True)


_NONE: Ints = np.zeros(0, dtype=np.int64)
NO_DECODES = Decodes(_NONE, _NONE, _NONE, _NONE, _NONE)


@dataclass(frozen=True, eq=False)
class Step:
    """A batch: sequences with one token first, longer ones (prefill chunks) after them.

    Attributes:
        others: whatever is not in ``decodes``, in the same order; it follows them.
        decodes: kept as arrays, since there may be a thousand of them in every step.
    """

    others: tuple[Work, ...] = ()
    decodes: Decodes = NO_DECODES

    @cached_property
    def works(self) -> tuple[Work, ...]:
        """All of them one by one; takes time, and is made when it is first asked for."""
        return (*self.decodes.works(), *self.others)

    @property
    def num_tokens(self) -> int:
        """Tokens in the whole batch."""
        return len(self.decodes) + sum(len(work.token_ids) for work in self.others)

    @cached_property
    def slots(self) -> Ints:
        """int64 [S]; every sequence's slot."""
        return _joined(self.decodes.slots, [work.slot for work in self.others])

    @cached_property
    def sampled_slots(self) -> Ints:
        """int64 [N]; the slots of those whose next token is sampled."""
        return _joined(self.decodes.slots, [work.slot for work in self.others if work.sample])


def _joined(first: Ints, more: list[int]) -> Ints:
    return np.concatenate([first, np.array(more, dtype=np.int64)]) if more else first


@dataclass(frozen=True, slots=True)
class SampledToken:
    """A chosen token; log-probabilities where they were asked for.

    ``top`` is ((token id, log-probability), …), best first.
    """

    token_id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class TokenScores(NamedTuple):
    """The log-probabilities of M tokens of a prompt, each given all tokens before it.

    Attributes:
        logprobs: float32 [M].
        top_ids: int32 [M, K]; the most probable tokens there, best first.
        top_logprobs: float32 [M, K]; theirs.
    """

    logprobs: NDArray[np.float32]
    top_ids: NDArray[np.int32]
    top_logprobs: NDArray[np.float32]
